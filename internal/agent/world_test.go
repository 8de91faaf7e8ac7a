package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

const nobody = 65534

// patience bounds a wait for something that hangs. It measures nothing.
const patience = 3 * time.Minute

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}

// process is a child of the test that takes commands and answers in lines.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu    sync.Mutex
	lines []string
	read  int // lines that next has returned
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Args[1], strings.Join(p.lines, "\n"))
		}
	})
	return p
}

// next waits for the next line.
func (p *process) next() (line string) {
	p.t.Helper()
	eventually(p.t, "a line of "+p.cmd.Args[1], func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.lines) == p.read {
			return false
		}
		line = p.lines[p.read]
		p.read++
		return true
	})
	return line
}

// expect waits for a line with all the words, among those that it did not
// return before.
func (p *process) expect(words ...string) (line string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("a line of %s with %q", p.cmd.Args[1], words), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := slices.IndexFunc(p.lines[p.read:], func(l string) bool { return holds(l, words...) })
		if i >= 0 {
			line = p.lines[p.read+i]
			p.read += i + 1
		}
		return i >= 0
	})
	return line
}

// saw counts the lines with all the words.
func (p *process) saw(words ...string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if holds(l, words...) {
			n++
		}
	}
	return n
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// status waits for the end.
func (p *process) status() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s has not ended", p.cmd.Args[1])
	}
	return p.cmd.ProcessState.ExitCode()
}

// world is a directory with a policy, for an agent and containers.
type world struct {
	t      *testing.T
	dir    string
	socket string
	policy string
	who    *syscall.Credential // of the agent; nil for root
	*process
}

const (
	policyHead = "version: 1\nname: test\nallow:\n"
	ruleOne    = "  - {rule: one, users: [\"0\"], algorithms: {hash: [sha1]}}\n"
	ruleTwo    = "  - {rule: two, users: [\"0\"], algorithms: {hash: [sha256]}}\n"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: the agent reads the memory of others")
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for users other than root
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, dir: dir, socket: filepath.Join(dir, "agent.sock"), policy: filepath.Join(dir, "policy.yaml")}
	w.write(policyHead + ruleOne)
	return w
}

func (w *world) write(policy string) {
	w.t.Helper()
	if err := os.WriteFile(w.policy, []byte(policy), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// agent starts an agent, and waits until it serves.
func (w *world) agent(env ...string) *world {
	w.t.Helper()
	w.launch(nil, env...)
	w.expect("note: serving on " + w.socket)
	return w
}

func (w *world) launch(files []*os.File, env ...string) {
	w.t.Helper()
	cmd := exec.Command(self, "test-agent", w.socket, w.policy)
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.who}
	w.process = start(w.t, cmd)
}

// self is this binary, also for users who cannot reach its file.
const self = "/proc/self/exe"

func metadata(grants ...string) string {
	text, _ := json.Marshal(map[string]any{"version": 1, "policy": "test", "grants": append([]string{}, grants...)})
	return string(text)
}

func stateOf(id string, grants ...string) specs.ContainerProcessState {
	return specs.ContainerProcessState{
		Version: "1.0.2", Fds: []string{specs.SeccompFdName}, Metadata: metadata(grants...),
		State: specs.State{Version: "1.0.2", ID: id, Status: specs.StateCreating},
	}
}

// container starts a process under a filter, and waits until the agent has it.
func (w *world) container(id string, grants ...string) *process {
	w.t.Helper()
	p := w.join(order{State: stateOf(id, grants...)}, nil)
	w.expect("note: container", id)
	return p
}

func (w *world) join(o order, who *syscall.Credential) *process {
	w.t.Helper()
	o.Socket = w.socket
	text, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(self, "test-workload", string(text))
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	p := start(w.t, cmd)
	if got := p.next(); got != "ready" {
		w.t.Fatalf("the workload: %s", got)
	}
	return p
}

// calls reports whether a thread is in a system call.
func (p *process) calls(number int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", p.cmd.Process.Pid))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.HasPrefix(string(text), fmt.Sprintf("%d ", number))
	})
}

// ask has a container make a call, and compares the result.
func (p *process) ask(name, want string) {
	p.t.Helper()
	fmt.Fprintln(p.in, name)
	if got := p.next(); got != name+" "+want {
		p.t.Errorf("%s, want %s", got, want)
	}
}

// held counts the connections of an agent, and its descriptors other than
// sockets: of sockets it has a stock.
func (w *world) held() (n int) {
	w.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", w.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if link, err := os.Readlink(dir + e.Name()); err == nil && !strings.HasPrefix(link, "socket:") {
			n++
		}
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		w.t.Fatal(err)
	}
	return n + strings.Count(string(sockets), fmt.Sprintf(" %s.%d\n", w.socket, w.cmd.Process.Pid))
}

// systemd plays the service manager.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn

	mu    sync.Mutex
	heard []string
	store map[string][]int
}

func newSystemd(t *testing.T, address string) *systemd {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	s := &systemd{t: t, conn: conn, store: map[string][]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.listen()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		for _, fds := range s.store {
			notify.CloseAll(fds)
		}
		if t.Failed() {
			t.Logf("systemd heard:\n%s", strings.Join(s.heard, "\n"))
		}
	})
	return s
}

func (s *systemd) listen() {
	for {
		buf, rights := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4*64))
		n, used, _, _, err := s.conn.ReadMsgUnix(buf, rights)
		if err != nil {
			return
		}
		var fds []int
		messages, _ := unix.ParseSocketControlMessage(rights[:used])
		for i := range messages {
			some, _ := unix.ParseUnixRights(&messages[i])
			fds = append(fds, some...)
		}
		s.hear(string(buf[:n]), fds)
	}
}

func (s *systemd) hear(text string, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, text)
	lines := strings.Split(text, "\n")
	name := ""
	for _, l := range lines {
		if n, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = n
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		s.store[name] = append(s.store[name], fds...)
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		notify.CloseAll(s.store[name])
		delete(s.store, name)
	}
}

// told counts the messages with all the words.
func (s *systemd) told(words ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.heard {
		if holds(h, words...) {
			n++
		}
	}
	return n
}

func (s *systemd) expect(words ...string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("a message to systemd with %q", words), func() bool { return s.told(words...) > 0 })
}

func (s *systemd) stored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.store)
}

// forget discards the messages so far.
func (s *systemd) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = nil
}

// restart starts an agent with the contents of the store, as systemd does.
func (w *world) restart(s *systemd, env ...string) {
	w.t.Helper()
	var files []*os.File
	var names []string
	s.mu.Lock()
	for name, fds := range s.store {
		for _, fd := range fds {
			copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				w.t.Fatal(err)
			}
			files = append(files, os.NewFile(uintptr(copied), name))
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	defer closeFiles(files)
	env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	w.launch(files, env...)
	w.expect("note: serving on " + w.socket)
}
