package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/manager"
)

// The test binary is the keeper that a test starts, and the agent of that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "test-keeper":
			os.Exit(testKeeper(os.Args[2:]))
		case "test-agent":
			os.Exit(testAgent())
		case "test-silent":
			os.Exit(testSilent(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

const patienceVariable, watchdogVariable = "AFALG_POLICY_TEST_PATIENCE", "AFALG_POLICY_TEST_WATCHDOG"

func variable(name string) time.Duration {
	d, _ := time.ParseDuration(os.Getenv(name))
	return d
}

func testKeeper(args []string) int {
	err := Run(Options{
		Listen: args[0], HandOver: args[1], Args: []string{"test-agent"},
		Note:     func(text string) { fmt.Println("note:", text) },
		Failed:   func(what string, err error) { fmt.Printf("failed: %s: %v\n", what, err) },
		Patience: variable(patienceVariable), Watchdog: variable(watchdogVariable),
	})
	var ended *EndedError
	switch {
	case errors.As(err, &ended):
		fmt.Println("ended:", err)
		return ended.Status
	case err != nil:
		fmt.Println("error:", err)
		return 3
	}
	return 0
}

// testAgent is an agent that keeps texts. It prints what it inherited, and does what
// it reads: its input is that of its keeper. Asked to end, it leaves a text behind.
func testAgent() int {
	if !Child() {
		fmt.Println("agent: it is no child of a keeper")
		return 3
	}
	m, watch, err := manager.Find()
	if err != nil {
		fmt.Println("agent:", err)
		return 3
	}
	fmt.Printf("agent %d has %s\n", os.Getpid(), strings.Join(inherited(), " "))
	if _, err := os.Lstat(os.Getenv(sickVariable)); err == nil {
		return 7
	}
	ends, words := make(chan os.Signal, 1), make(chan string)
	signal.Notify(ends, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			words <- in.Text()
		}
	}()
	fmt.Println("agent says:", m.Tell("READY=1"))
	ticks := time.NewTicker(max(watch/10, time.Millisecond))
	for {
		select {
		case s := <-ends:
			if s == unix.SIGHUP {
				fmt.Println("agent reloads")
				continue
			}
			keep(m, "session-1", fmt.Sprint(os.Getpid()))
			fmt.Printf("agent %d ends\n", os.Getpid())
			return 0
		case <-ticks.C:
			_ = m.Tell("WATCHDOG=1")
		case text := <-words:
			w := strings.Fields(text)
			switch w[0] {
			case "keep":
				keep(m, w[1], w[2])
			case "many": // descriptors in one message
				keep(m, w[1], slices.Repeat([]string{"x"}, 200)...)
			case "forget":
				_ = m.Forget(w[1])
			case "say":
				_ = m.Tell(strings.Split(w[1], ",")...)
			case "huge":
				_ = m.Tell(strings.Repeat("x", maxSaid), "FDSTOREREMOVE=1")
			case "hang":
				ticks.Stop()
			case "exit":
				return 5
			}
			fmt.Println("agent did", text)
		}
	}
}

// sickVariable names a file: while it exists, agents end before they serve.
const sickVariable = "AFALG_POLICY_TEST_SICK"

// inherited returns what was passed in, as NAME=TEXT, sorted.
func inherited() (texts []string) {
	for _, f := range activation.Files(true) {
		text := make([]byte, 100)
		n, err := f.ReadAt(text, 0)
		if err != nil && err != io.EOF {
			text, n = []byte("socket"), 6
		}
		texts = append(texts, f.Name()+"="+string(text[:n]))
		f.Close()
	}
	slices.Sort(texts)
	if len(texts) > 20 {
		texts = []string{fmt.Sprintf("listen and %d descriptors", len(texts)-1)}
	}
	return texts
}

func keep(m manager.Manager, name string, texts ...string) {
	var fds []int
	for _, text := range texts {
		fds = append(fds, memory(text))
	}
	if err := m.Keep(name, fds...); err != nil {
		fmt.Println("agent:", err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func memory(text string) int {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
	}
	if err != nil {
		panic(err)
	}
	return fd
}

// testPatience bounds a wait for something that hangs. It measures nothing.
const testPatience = 3 * time.Minute

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within %v: %s", testPatience, what)
}

// process is a keeper with its agents: their lines come out of one pipe.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	done chan struct{}

	mu    sync.Mutex
	lines []string
	read  int
}

// world is a directory with the places of the sockets.
type world struct {
	t      *testing.T
	listen string
	door   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: a keeper believes root alone")
	}
	dir := t.TempDir()
	return &world{t, filepath.Join(dir, "agent.sock"), filepath.Join(dir, "hand-over.sock")}
}

func (w *world) launch(env ...string) *process {
	w.t.Helper()
	return launch(w.t, env, "test-keeper", w.listen, w.door)
}

func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	p := &process{t: t, cmd: cmd, in: in, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
		r.Close()
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%d:\n%s", cmd.Process.Pid, strings.Join(p.lines, "\n"))
		}
	})
	return p
}

// keeper starts a keeper, and waits until its agent serves.
func (w *world) keeper(env ...string) *process {
	w.t.Helper()
	p := w.launch(env...)
	p.expect("agent says: <nil>")
	return p
}

// expect waits for a line with all the words, behind those it returned before.
func (p *process) expect(words ...string) (line string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("a line with %q", words), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, l := range p.lines[p.read:] {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) }) {
				line = l
				p.read += i + 1
				return true
			}
		}
		return false
	})
	return line
}

// agent waits for the next agent, and returns its process and what it inherited.
func (p *process) agent() (pid int, has string) {
	p.t.Helper()
	line := p.expect("agent ", " has listen")
	if n, err := fmt.Sscanf(line, "agent %d has", &pid); n != 1 {
		p.t.Fatal(line, err)
	}
	_, has, _ = strings.Cut(line, " has ")
	return pid, has
}

// do has the agent do something.
func (p *process) do(words string) {
	p.t.Helper()
	fmt.Fprintln(p.in, words)
	p.expect("agent did " + words)
}

func (p *process) end(s unix.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(testPatience):
		p.t.Fatal("it has not ended")
	}
	return p.cmd.ProcessState.ExitCode()
}

// told waits for a line with all the words, wherever it stands: keeper and agent
// write at the same time.
func (p *process) told(words ...string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("a line with %q", words), func() bool { return p.saw(words...) })
}

func (p *process) saw(words ...string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, func(l string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) })
	})
}
