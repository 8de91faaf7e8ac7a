package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mark is a command line that nobody else has. Its processes that are left at
// the end are killed, so that they hold up no pipe.
func mark(t *testing.T) string {
	t.Helper()
	line := fmt.Sprintf("sleep 4711.%d%d", os.Getpid(), marks.Add(1))
	t.Cleanup(func() { killMarked(line) })
	return line
}

var marks atomic.Int32

// running is a run whose command talks.
type running struct {
	*testing.T
	*exec.Cmd
	pipe   *os.File
	out    *bufio.Reader
	stderr *strings.Builder
}

func startRun(t *testing.T, command ...string) *running {
	t.Helper()
	args := underRun(command...)
	r := &running{T: t, Cmd: exec.Command(args[0], args[1:]...), stderr: &strings.Builder{}}
	r.Stderr, r.WaitDelay = r.stderr, patience
	pipe, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	r.Stdout, r.pipe, r.out = theirs, pipe, bufio.NewReader(pipe)
	// In the tests' own group nothing may stop, if nobody is there to continue it.
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Process.Kill()
		r.Wait()
		pipe.Close()
	})
	return r
}

func (r *running) line() string {
	r.Helper()
	r.pipe.SetReadDeadline(time.Now().Add(patience))
	line, err := r.out.ReadString('\n')
	if err != nil {
		r.Errorf("a line of the command: %v; on standard error %.500q", err, r.stderr)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *running) expect(want string) {
	r.Helper()
	if got := r.line(); got != want {
		r.Fatalf("the command said %q, want %q", got, want)
	}
}

// end waits for the run; nothing more may have been said, and nobody may be
// left to say it.
func (r *running) end(status int) {
	r.Helper()
	within(r.T, patience, "the end of the run", func() { r.Wait() })
	if got := shellStatus(r.ProcessState); got != status {
		r.Errorf("status %d, want %d; on standard error %.500q", got, status, r.stderr)
	}
	r.pipe.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(r.out); len(rest) > 0 || err != nil {
		r.Errorf("left in the pipe: %q, %v", rest, err)
	}
}

// trapping says which signals come, until SIGUSR2 ends it.
const trapping = `for s in HUP INT QUIT TERM USR1 WINCH CONT ALRM; do trap "echo $s" $s; done
trap 'exit 5' USR2
echo ready
while :; do sleep 0.02; done`

func TestRunPassesSignals(t *testing.T) {
	r := startRun(t, "sh", "-c", trapping)
	r.expect("ready")
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGUSR1, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGWINCH, unix.SIGALRM, unix.SIGTERM} {
		if err := r.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		r.expect(strings.TrimPrefix(unix.SignalName(s), "SIG"))
	}
	r.Process.Signal(unix.SIGUSR2)
	r.end(5)
}

// A signal that nobody catches ends the command, and the status says so.
func TestRunEndsBySignal(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGALRM, unix.SIGABRT, 40, 64} {
		r := startRun(t, "sh", "-c", "echo ready; exec sleep 100")
		r.expect("ready")
		r.Process.Signal(s)
		r.end(128 + int(s))
	}
}

// A signal that comes too early is not lost: the run ends, by itself or with the
// command.
func TestRunSignalledEarly(t *testing.T) {
	for i := range 25 {
		line := mark(t)
		r := startRun(t, strings.Fields(line)...)
		time.Sleep(time.Duration(i) * 8 * time.Millisecond) // any moment will do
		r.Process.Signal(unix.SIGTERM)
		r.end(128 + int(unix.SIGTERM))
		r.expectNobody(line)
	}
}

// state is the letter of /proc/PID/stat.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	if err != nil || rest == "" {
		return "gone"
	}
	return rest[:1]
}

func TestRunStops(t *testing.T) {
	r := startRun(t, "sh", "-c", "echo $$; "+trapping)
	command, err := strconv.Atoi(r.line())
	if err != nil {
		t.Fatal(err)
	}
	r.expect("ready")
	for range 3 {
		r.Process.Signal(unix.SIGTSTP)
		if !soon(func() bool { return state(command) == "T" && state(r.Process.Pid) == "T" }) {
			t.Fatalf("the command is %s, and run is %s", state(command), state(r.Process.Pid))
		}
		r.Process.Signal(unix.SIGCONT)
		r.expect("CONT")
		if !soon(func() bool { return state(r.Process.Pid) != "T" }) {
			t.Error("run is stopped still")
		}
	}
	r.Process.Signal(unix.SIGUSR2)
	r.end(5)
}

// Processes that the command leaves behind go on, and the broker decides for them.
func TestRunLeavesBackground(t *testing.T) {
	dir := t.TempDir()
	answer, gate := filepath.Join(dir, "answer"), filepath.Join(dir, "gate")
	script := fmt.Sprintf(`(while ! [ -e %s ]; do sleep 0.01; done; "$@" >%s.new 2>&1; mv %s.new %s) >/dev/null 2>&1 </dev/null & echo $!; exit 3`, gate, answer, answer, answer)
	out := runOf(t, append([]string{"afalg-policy", "run", "builtin:baseline", "--log", filepath.Join(dir, "log"), "--", "sh", "-c", script, "sh"}, selfAs(t, "socket")...),
		func(cmd *exec.Cmd) { cmd.Stderr = nil }) // a pipe would be waited for
	_, err := strconv.Atoi(strings.TrimSpace(out.stdout))
	if out.status != 3 || err != nil {
		t.Fatalf("%+v", out)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var text []byte
	soon(func() bool { text, err = os.ReadFile(answer); return err == nil })
	if string(text) != "address family not supported by protocol\n" {
		t.Errorf("it was told %q, %v", text, err)
	}
	// The log is written after the answer.
	var log []byte
	if !soon(func() bool {
		log, _ = os.ReadFile(filepath.Join(dir, "log"))
		return strings.Contains(string(log), `"reason":"the workload holds no grant"`)
	}) {
		t.Errorf("logged %q", log)
	}
}

// childrenOf lists a process's children by number.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}

// startTree runs a tree with a line of their own for each test: children,
// orphans and those that left the session.
func startTree(t *testing.T, line string) *running {
	t.Helper()
	const script = `$0 & setsid $0 & setsid sh -c "setsid $0 & $0" & (setsid $0 &) ; trap '' TERM HUP; echo ready; $0`
	r := startRun(t, "sh", "-c", strings.ReplaceAll(script, "$0", line))
	r.expect("ready")
	if !soon(func() bool { return len(marked(line)) == 6 }) {
		t.Fatalf("the tree has %d processes", len(marked(line)))
	}
	return r
}

func (r *running) expectNobody(line string) {
	r.Helper()
	if !soon(func() bool { return marked(line) == nil }) {
		r.Errorf("%v are left", marked(line))
		killMarked(line)
	}
}

// No command is left without its broker, nor without the process that stands
// for it.
func TestRunBrokerKilled(t *testing.T) {
	line := mark(t)
	r := startTree(t, line)
	_, broker := r.parts()
	unix.Kill(broker, unix.SIGKILL)
	r.end(3)
	r.expectNobody(line)
	if got := r.stderr.String(); got != brokerKilled {
		t.Errorf("%q, want %q", got, brokerKilled)
	}
}

const brokerKilled = "afalg-policy: the broker has ended (killed), and nothing can decide about AF_ALG any more: the command and all that it started were killed\n"

// parts are the processes behind the front.
func (r *running) parts() (guard, broker int) {
	r.Helper()
	guards := childrenOf(r.T, r.Process.Pid)
	if len(guards) != 1 {
		r.Fatalf("children of the front: %v", guards)
	}
	brokers := childrenOf(r.T, guards[0])
	if len(brokers) != 1 {
		r.Fatalf("children of the guard: %v", brokers)
	}
	return guards[0], brokers[0]
}

// Whichever part is left ends the tree.
func TestRunPartsKilled(t *testing.T) {
	const guardKilled = "afalg-policy: the guard of the broker was killed: the command and all that it started were killed\n"
	for _, test := range []struct {
		name                 string
		front, guard, broker bool
		stderr               string
	}{
		{"guard", false, true, false, guardKilled + brokerKilled},
		{"guard and broker", false, true, true, brokerKilled},
		{"front and broker", true, false, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			line := mark(t)
			r := startTree(t, line)
			guard, broker := r.parts()
			status := 3
			killAtOnce(t, map[int]bool{broker: test.broker, guard: test.guard, r.Process.Pid: test.front})
			if test.front {
				status = 128 + int(unix.SIGKILL)
			}
			r.end(status)
			r.expectNobody(line)
			if got := r.stderr.String(); got != test.stderr {
				t.Errorf("%q, want %q", got, test.stderr)
			}
		})
	}
}

// killAtOnce kills processes so that none of them sees another's end. They are
// stopped before the first one dies.
func killAtOnce(t *testing.T, kill map[int]bool) {
	t.Helper()
	maps.DeleteFunc(kill, func(_ int, kill bool) bool { return !kill })
	for pid := range kill {
		unix.Kill(pid, unix.SIGSTOP)
		if !soon(func() bool { return state(pid) == "T" }) {
			t.Fatalf("process %d is in state %s", pid, state(pid))
		}
	}
	for pid := range kill {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// Processes that the command left behind end with the broker, and with its guard.
func TestRunDaemonEnds(t *testing.T) {
	for name, kill := range map[string]func(guard, broker int) int{
		"broker": func(_, broker int) int { return broker },
		"guard":  func(guard, _ int) int { return guard },
	} {
		t.Run(name, func(t *testing.T) {
			line := mark(t)
			// Twice forked, and of another session.
			script := strings.ReplaceAll(`(setsid sh -c "$0 & $0" >/dev/null 2>&1 &) ; echo ready; while ! [ -e "$1" ]; do sleep 0.01; done; exit 1`, "$0", line)
			gate := filepath.Join(t.TempDir(), "gate")
			r := startRun(t, "sh", "-c", script, "sh", gate)
			r.expect("ready")
			guard, broker := r.parts()
			if !soon(func() bool { return len(marked(line)) == 2 }) {
				t.Fatalf("the tree has %d processes", len(marked(line)))
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.end(1)
			if len(marked(line)) != 2 {
				t.Fatalf("of what was left %v is there", marked(line))
			}
			unix.Kill(kill(guard, broker), unix.SIGKILL)
			r.expectNobody(line)
		})
	}
}

func TestRunFrontKilled(t *testing.T) {
	line := mark(t)
	r := startTree(t, line)
	_, broker := r.parts()
	r.Process.Kill()
	r.end(128 + int(unix.SIGKILL))
	r.expectNobody(line)
	if !soon(func() bool { return state(broker) == "gone" || state(broker) == "Z" }) {
		t.Error("the broker is left")
	}
	const want = "afalg-policy: the process that run began as was killed: the command and all that it started were killed\n"
	if got := r.stderr.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Nobody of the same user can look into the processes of run.
func TestRunHides(t *testing.T) {
	r := startRun(t, "sh", "-c", "echo ready; exec "+mark(t))
	r.expect("ready")
	guard, broker := r.parts()
	for _, pid := range []int{guard, broker, r.Process.Pid} {
		var st syscall.Stat_t
		if err := syscall.Stat(fmt.Sprintf("/proc/%d/environ", pid), &st); err != nil || st.Uid != 0 {
			t.Errorf("process %d is user %d's to look into, %v", pid, st.Uid, err)
		}
	}
	r.Process.Signal(unix.SIGTERM)
	r.end(143)
}
