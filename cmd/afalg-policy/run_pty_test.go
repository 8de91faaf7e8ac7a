package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the master's side, and what came out of it.
type terminal struct {
	*testing.T
	*exec.Cmd
	master *os.File
	mu     sync.Mutex
	text   bytes.Buffer
	read   chan struct{}
}

// onTerminal starts a command as the leader of a session on a terminal.
func onTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var number int
	control(t, master, func(fd int) error {
		if number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	})
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	p := &terminal{T: t, Cmd: exec.Command(args[0], args[1:]...), master: master, read: make(chan struct{})}
	p.Stdin, p.Stdout, p.Stderr = slave, slave, slave
	p.Env = append(os.Environ(), "PS1=", "TERM=dumb", "ENV=")
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.resize(33, 111)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go p.copy()
	t.Cleanup(func() {
		p.Process.Kill()
		p.Cmd.Wait()
		master.Close()
		<-p.read
	})
	return p
}

// control uses a file's descriptor. By Fd it would block, and Close would wait
// for whoever reads.
func control(t *testing.T, f *os.File, use func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var used error
	if err := raw.Control(func(fd uintptr) { used = use(int(fd)) }); err != nil || used != nil {
		t.Fatal(err, used)
	}
}

func (p *terminal) resize(rows, columns uint16) {
	p.Helper()
	control(p.T, p.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// copy ends when nobody has the terminal any more.
func (p *terminal) copy() {
	defer close(p.read)
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.text.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *terminal) wait() {
	p.Helper()
	within(p.T, patience, "the end", func() { p.Cmd.Wait() })
}

func (p *terminal) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *terminal) write(text string) {
	p.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.Fatal(err)
	}
}

// foreground waits until a job has the terminal, or the shell itself again.
func (p *terminal) foreground(job bool) {
	p.Helper()
	var group int
	ok := soon(func() bool {
		var err error
		if group, err = unix.IoctlGetInt(int(p.master.Fd()), unix.TIOCGPGRP); err != nil {
			p.Fatal(err)
		}
		return (group != p.Cmd.Process.Pid) == job
	})
	if !ok {
		p.Fatalf("process group %d has the terminal, and the shell is %d:\n%s", group, p.Cmd.Process.Pid, p.screen())
	}
}

// expect waits until a text has come so many times. It notices a text that comes
// once too often by then, or before the next one.
func (p *terminal) expect(text string, times int) {
	p.Helper()
	ok := soon(func() bool { return strings.Count(p.screen(), text) >= times })
	if got := strings.Count(p.screen(), text); !ok || got != times {
		p.Fatalf("%q came %d times, want %d:\n%s", text, got, times, p.screen())
	}
}

// last is a signal that is delivered behind all others of the terminal.
const last = 40

// Ctrl-C and the size of the window reach the command once, not once more by way
// of run.
func TestRunOnTerminal(t *testing.T) {
	p := onTerminal(t, underRun("sh", "-c", `trap 'echo "<INT>"' INT; trap 'echo "<WINCH>"' WINCH; trap 'echo "<last>"' `+fmt.Sprint(last)+`; trap 'exit 9' QUIT
stty size; tty >/dev/null && echo "<ready>"; while :; do sleep 0.02; done`)...)
	p.expect("<ready>", 1)
	p.expect("33 111", 1)
	signals := 0
	// once waits for what a signal of the terminal does. A signal that run alone gets
	// then, and passes on, comes behind whatever it would have passed on before.
	once := func(text string, times int) {
		p.expect(text, times)
		if err := p.Process.Signal(syscall.Signal(last)); err != nil {
			t.Fatal(err)
		}
		signals++
		p.expect("<last>", signals)
		p.expect(text, times)
	}
	for i := range 3 {
		p.write("\x03")
		once("<INT>", i+1)
		p.resize(40, uint16(100+i))
		once("<WINCH>", i+1)
	}
	p.write("\x1c") // Ctrl-\
	p.wait()
	if got := shellStatus(p.ProcessState); got != 9 {
		t.Errorf("status %d:\n%s", got, p.screen())
	}
}

// Ctrl-C ends what does not catch it, as it does without run.
func TestRunInterruptedOnTerminal(t *testing.T) {
	p := onTerminal(t, underRun("sh", "-c", `echo "<ready>"; exec sleep 100`)...)
	p.expect("<ready>", 1)
	p.write("\x03")
	p.wait()
	if got := shellStatus(p.ProcessState); got != 130 {
		t.Errorf("status %d:\n%s", got, p.screen())
	}
}

// A terminal that goes away hangs up on the command.
func TestRunHungUp(t *testing.T) {
	line := mark(t)
	p := onTerminal(t, underRun("sh", "-c", `echo "<ready>"; exec `+line)...)
	p.expect("<ready>", 1)
	p.master.Close()
	p.wait()
	if got := shellStatus(p.ProcessState); got != 129 {
		t.Errorf("status %d", got)
	}
	if left := marked(line); left != nil {
		t.Errorf("%v are left", left)
		killMarked(line)
	}
}

// A shell's jobs: Ctrl-Z stops run and the command, fg and bg go on with both.
func TestRunUnderShell(t *testing.T) {
	p := onTerminal(t, "sh", "-i")
	p.write("stty -echo; echo '<shell''>'\n")
	p.expect("<shell>", 1)
	p.write(strings.Join(underRun(selfAs(t, "job")...), " ") + "\n")
	p.expect("<begun>", 1)
	p.write("\x1a")
	p.foreground(false)
	p.write("\necho '<stopped''>'\n")
	p.expect("<stopped>", 1)
	p.write("jobs\n")
	if !soon(func() bool { return strings.Contains(p.screen(), "Stopped") }) {
		t.Fatalf("no job is stopped:\n%s", p.screen())
	}
	p.write("fg\n")
	p.expect("<on>", 1)
	p.foreground(true)
	p.write("\x1a")
	p.foreground(false)
	p.write("\nbg; echo '<background''>'\n")
	p.expect("<background>", 1)
	p.write("fg\n")
	p.foreground(true)
	p.write("\x03")
	p.foreground(false)
	p.write("\necho \"<status $?>\"\n")
	p.expect("<status 6>", 1)
	p.write("exit 0\n")
	p.wait()
}

// In the background a command may not read from the terminal, and stops.
func TestRunReadsFromBackground(t *testing.T) {
	p := onTerminal(t, "sh", "-i")
	p.write("stty -echo; echo '<shell''>'\n")
	p.expect("<shell>", 1)
	p.write(strings.Join(underRun(), " ") + " sh -c 'read x; echo \"<got $x>\"' &\n")
	if !soon(func() bool {
		p.write("jobs\n")
		time.Sleep(50 * time.Millisecond)
		return strings.Contains(p.screen(), "Stopped")
	}) {
		t.Fatalf("it is not stopped:\n%s", p.screen())
	}
	p.write("fg\nword\n")
	p.expect("<got word>", 1)
}
