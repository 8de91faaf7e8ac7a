package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/testing/child"
)

// The test binary is also the workload. It makes the calls that it is told to,
// a line each, on a thread under the filter.
// The descriptors of a child.
const (
	fdControl = 3 // its listener goes out here
	fdIn      = 4 // the standard input of its children
	fdOut     = 5
	fdPassed  = 3 // in a child: the descriptor passed to it
)

// roomSize is the size of a child's memory for arguments. The page behind it is
// not mapped.
const roomSize = 64 * 4096

func TestMain(m *testing.M) {
	child.Main(m.Run, map[string]func([]string) error{
		"main": work, "thread": work, "powerful": work, "again": work,
		"sockets": func([]string) error { // as package launch does
			ended := make(chan error)
			go func() { ended <- broker.MakeSockets(fdControl) }()
			return <-ended
		},
	})
}

func work([]string) error {
	role := child.Role()
	// Before the threads part: the runtime's own descriptors have to be in both
	// tables.
	filter, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	if role == "thread" { // not the main one, and with descriptors of its own
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			err := unix.Unshare(unix.CLONE_FILES)
			if err == nil {
				err = install(role, filter)
			}
			if err == nil {
				err = obey()
			}
			done <- err
		}()
		return <-done
	}
	if role != "again" {
		if err := install(role, filter); err != nil {
			return err
		}
	}
	return obey()
}

// install does what package launch does to a command.
func install(role string, text []byte) error {
	if role != "powerful" {
		if err := drop(); err != nil {
			return err
		}
	}
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	filter := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&text[0])), len(text)/size)
	listener, err := notify.Install(filter)
	if err != nil {
		return err
	}
	if err := notify.SendFDs(fdControl, []byte{1}, listener); err != nil {
		return err
	}
	return unix.Close(listener)
}

func drop() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	const word, bit = unix.CAP_SYS_PTRACE / 32, uint32(1) << (unix.CAP_SYS_PTRACE % 32)
	caps[word].Effective &^= bit
	caps[word].Permitted &^= bit
	caps[word].Inheritable &^= bit
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func obey() error {
	room, err := unix.Mmap(-1, 0, roomSize+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(room[roomSize:], unix.PROT_NONE); err != nil {
		return err
	}
	fmt.Println("ready", unix.Gettid(), uintptr(unsafe.Pointer(&room[0])))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "call":
			fmt.Println(call(words[1:]))
		case "exec":
			return unix.Exec(words[1], append(words[1:], os.Args[1:]...), child.Become("again"))
		case "spawn":
			fmt.Println(spawn(words[1]))
		}
	}
	return in.Err()
}

func call(words []string) string {
	var n [7]uintptr
	for i, w := range words {
		v, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			return err.Error()
		}
		n[i] = uintptr(v)
	}
	r, _, errno := unix.Syscall6(n[0], n[1], n[2], n[3], n[4], n[5], n[6])
	return fmt.Sprintf("%d %d", int(r), int(errno))
}

// spawn starts a process under the same filter, with one descriptor.
func spawn(word string) string {
	fd, err := strconv.Atoi(word)
	if err != nil {
		return err.Error()
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   child.Become("again"), // under the filter already
		Files: []uintptr{fdIn, fdOut, 2, uintptr(fd)},
	})
	unix.Close(fdIn)
	unix.Close(fdOut)
	return fmt.Sprint(pid, err)
}

// proc is a process of the workload.
type proc struct {
	*testing.T
	pid  int
	tid  uint32
	room uint64
	in   io.Writer
	out  *bufio.Reader
}

// first is the one that was started.
type first struct {
	proc
	*exec.Cmd
	childIn, childOut *os.File // of its children
}

func startChild(t *testing.T, role, filter string) (*first, *notify.Listener) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	theirs := os.NewFile(uintptr(ends[1]), "theirs")
	spawnIn, childIn := pipe(t)
	childOut, spawnOut := pipe(t)
	c := &first{Cmd: child.Command(role, filter), childIn: childIn, childOut: childOut}
	c.T = t
	c.ExtraFiles = []*os.File{theirs, spawnIn, spawnOut}
	in, err1 := c.StdinPipe()
	out, err2 := c.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.ExtraFiles {
		f.Close()
	}
	c.proc = proc{T: t, pid: c.Process.Pid, in: in, out: bufio.NewReader(out)}
	c.ready()
	_, fds, err := notify.ReceiveFDs(ends[0], make([]byte, 1), 1)
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	l, err := notify.NewListener(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	return c, l
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// end kills the child and waits for it. Its own children end with their
// input.
func (c *first) end() {
	c.childIn.Close()
	c.childOut.Close()
	c.Process.Kill()
	c.Wait()
}

func (p *proc) ready() {
	p.Helper()
	line, err := p.out.ReadString('\n')
	if _, scanned := fmt.Sscanf(line, "ready %d %d\n", &p.tid, &p.room); scanned != nil {
		p.Fatalf("the child said %q, %v", line, err)
	}
}

// spawn has the child start another process, which has fd as fdPassed.
func (c *first) spawn(fd int) *proc {
	c.Helper()
	c.say("spawn %d", fd)
	p := &proc{T: c.T, in: c.childIn, out: bufio.NewReader(c.childOut)}
	line, _ := c.out.ReadString('\n')
	if _, err := fmt.Sscanf(line, "%d <nil>\n", &p.pid); err != nil {
		c.Fatalf("spawn: %s", line)
	}
	p.ready()
	return p
}

// exec has the process execute a program that does the same.
func (p *proc) exec(command ...string) {
	p.Helper()
	p.say("exec %s", strings.Join(command, " "))
	p.ready()
}

func (p *proc) say(format string, args ...any) {
	p.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.Fatal(err)
	}
}

// begin makes a call that result waits for.
func (p *proc) begin(nr uint64, args ...uint64) {
	p.Helper()
	line := fmt.Sprint("call ", nr)
	for _, a := range args {
		line += fmt.Sprint(" ", a)
	}
	p.say("%s", line)
}

func (p *proc) result() (int, unix.Errno) {
	p.Helper()
	line, err := p.out.ReadString('\n')
	var value, errno int
	if _, scanned := fmt.Sscanf(line, "%d %d\n", &value, &errno); scanned != nil {
		p.Fatalf("the child said %q, %v", line, err)
	}
	return value, unix.Errno(errno)
}

func (p *proc) call(nr uint64, args ...uint64) (int, unix.Errno) {
	p.Helper()
	p.begin(nr, args...)
	return p.result()
}

// put writes to the end of the process's memory for arguments.
func (p *proc) put(data []byte) (at uint64) {
	p.Helper()
	at = p.room + roomSize - uint64(len(data))
	p.putAt(at, data)
	return at
}

func (p *proc) putAt(at uint64, data []byte) {
	p.Helper()
	if err := notify.WriteMemory(p.tid, at, data); err != nil {
		p.Fatal(err)
	}
}
