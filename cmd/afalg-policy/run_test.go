package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also what is run: "afalg-policy-test-role ROLE" are its
// arguments then, as every process of run has the same environment.
const runRole = "afalg-policy-test-role"

func init() {
	if len(os.Args) > 2 && os.Args[1] == runRole {
		runtime.LockOSThread()
		fmt.Println(runRoles[os.Args[2]](os.Args[3:]))
		os.Exit(0)
	}
}

var runRoles = map[string]func(args []string) error{
	// socket prints the answer of socket(AF_ALG).
	"socket": func([]string) error {
		_, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		return err
	},
	// job says that it goes on whenever it does, until it is interrupted. It is no
	// shell: dash starts programs by vfork, and cannot stop as long as its child is
	// stopped before execve.
	"job": func([]string) error {
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, unix.SIGINT, unix.SIGCONT)
		fmt.Println("<begun>")
		for s := range signals {
			if s == unix.SIGINT {
				os.Exit(6)
			}
			fmt.Println("<on>")
		}
		return nil
	},
	// blocked becomes a command with two signals blocked.
	"blocked": func(args []string) error {
		var set unix.Sigset_t
		set.Val[0] = 1<<(unix.SIGUSR2-1) | 1<<(unix.SIGTERM-1)
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
			return err
		}
		path, err := exec.LookPath(args[0])
		if err != nil {
			return err
		}
		return unix.Exec(path, args, os.Environ())
	},
}

// underRun is the command line that runs a command.
func underRun(command ...string) []string {
	return append([]string{"afalg-policy", "run", "builtin:baseline", "--"}, command...)
}

// self is the test binary as a role.
func selfAs(t *testing.T, role ...string) []string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{path, runRole}, role...)
}

// ran is all that a caller sees of a command.
type ran struct {
	stdout, stderr string
	status         int
}

func runOf(t *testing.T, args []string, change ...func(*exec.Cmd)) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	for _, c := range change {
		c(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, patience, strings.Join(args, " "), func() { cmd.Wait() })
	return ran{stdout.String(), stderr.String(), shellStatus(cmd.ProcessState)}
}

// shellStatus is the status as a shell has it.
func shellStatus(p *os.ProcessState) int {
	if w := p.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}

func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

// patience is for what hangs, and so no measure of anything.
const patience = 3 * time.Minute

func soon(holds func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return holds()
}

// The command sees of itself the same as if it were started directly.
func TestRunIsTransparent(t *testing.T) {
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	const signals = `grep -E '^(SigBlk|SigIgn|ShdPnd|SigPnd)' /proc/self/status`
	for _, test := range []struct {
		name    string
		before  []string // what starts the command, directly or by run
		command []string
	}{
		{"descriptors", nil, []string{"ls", "/proc/self/fd"}},
		{"more descriptors", []string{"sh", "-c", `exec "$@" 5</dev/null 9>/dev/null`, "sh"}, []string{"ls", "/proc/self/fd"}},
		{"descriptors where ours would be", []string{"bash", "-c", `exec "$@" 64</dev/null 65>/dev/null 66</dev/null`, "sh"}, []string{"ls", "/proc/self/fd"}},
		{"signals", nil, sh(signals)},
		{"ignored signals", []string{"sh", "-c", `trap '' HUP INT; exec "$@"`, "sh"}, sh(signals)},
		{"blocked signals", selfAs(t, "blocked"), sh(signals)},
		{"limits", nil, []string{"cat", "/proc/self/limits"}},
		{"a low limit of descriptors", []string{"sh", "-c", `ulimit -Sn 200; exec "$@"`, "sh"}, sh("ulimit -Sn; ulimit -Hn")},
		{"a lower limit of descriptors", []string{"sh", "-c", `ulimit -Sn 50; exec "$@"`, "sh"}, sh("ulimit -Sn; ulimit -Hn")},
		{"a hard limit of descriptors", []string{"sh", "-c", `ulimit -n 200; exec "$@"`, "sh"}, sh("ulimit -Sn; ulimit -Hn")},
		{"session and process group", nil, []string{"cut", "-d", " ", "-f", "5-8", "/proc/self/stat"}},
		{"priority", []string{"nice", "-n", "5"}, sh("nice; umask; pwd; id")},
		{"mask of files", []string{"sh", "-c", `umask 027; exec "$@"`, "sh"}, sh("umask")},
		{"cgroup and namespaces", nil, sh("cat /proc/self/cgroup; readlink /proc/self/ns/*; cat /proc/self/oom_score_adj")},
		{"arguments", nil, []string{"printf", "%s|", "", " ", "a\nb", "$x", "--", "-v"}},
		{"status", nil, sh("exit 255")},
		{"a signal", nil, sh("kill -HUP $$")},
		{"a signal of the user's", nil, sh("kill -USR1 $$")},
	} {
		want := runOf(t, append(test.before, test.command...))
		got := runOf(t, append(test.before, underRun(test.command...)...))
		if got != want {
			t.Errorf("%s:\ndirectly %+v\nby run   %+v", test.name, want, got)
		}
	}
}

// The Go runtime opens what is closed of the first three descriptors, so that
// the command has /dev/null there.
func TestRunClosedStreams(t *testing.T) {
	for fd, redirection := range []string{"<&-", ">&-", "2>&-"} {
		script := fmt.Sprintf(`"$@" %s`, redirection)
		command := []string{"sh", "-c", fmt.Sprintf(`x=$(readlink /proc/$$/fd/%d); echo "$x" >&9`, fd)}
		out := runOf(t, append([]string{"sh", "-c", "exec 9>&1; " + script, "sh"}, underRun(command...)...))
		if out != (ran{"/dev/null\n", "", 0}) {
			t.Errorf("%s: %+v", redirection, out)
		}
	}
}

// statusField reads a field of a command's /proc/self/status.
func statusField(t *testing.T, out ran, key string) string {
	t.Helper()
	for line := range strings.Lines(out.stdout) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Errorf("no %s in %+v", key, out)
	return ""
}

func TestRunPrivileges(t *testing.T) {
	out := runOf(t, underRun("cat", "/proc/self/status"))
	want := "1"
	if os.Geteuid() == 0 {
		want = "0"
	}
	if got := statusField(t, out, "NoNewPrivs"); got != want {
		t.Errorf("NoNewPrivs is %s, want %s", got, want)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		mask, err := strconv.ParseUint(statusField(t, out, set), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if has := mask&(1<<unix.CAP_SYS_PTRACE) != 0; has && (set != "CapBnd" || want == "0") {
			t.Errorf("%s has CAP_SYS_PTRACE", set)
		}
		if os.Geteuid() == 0 && set == "CapEff" && mask == 0 {
			t.Error("the other capabilities are lost")
		}
	}
	if got := statusField(t, out, "Seccomp"); got != "2" {
		t.Errorf("Seccomp is %s", got)
	}
}

// reachable is the program where every user can run it.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "afalg-policy")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunAsUser(t *testing.T) {
	path := reachable(t)
	asUser := func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
	}
	out := runOf(t, []string{path, "run", "builtin:baseline", "--", "cat", "/proc/self/status"}, asUser)
	if got := statusField(t, out, "NoNewPrivs"); got != "1" || out.status != 0 {
		t.Errorf("NoNewPrivs is %s: %+v", got, out)
	}
	out = runOf(t, []string{path, "run", "builtin:baseline", "--", path, runRole, "socket"}, asUser)
	if out.status != 0 || out.stdout != "address family not supported by protocol\n" || !strings.Contains(out.stderr, `"reason":"the workload holds no grant"`) {
		t.Errorf("socket: %+v", out)
	}
}

// Every line of the log is JSON, and every denial of the command is in it.
func TestRunLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	args := append([]string{"afalg-policy", "run", "builtin:baseline", "--log", log, "--"}, selfAs(t, "socket")...)
	for range 3 {
		if out := runOf(t, args); out != (ran{"address family not supported by protocol\n", "", 0}) {
			t.Errorf("%+v", out)
		}
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != 3 {
		t.Errorf("%d lines, want 3:\n%s", len(lines), data)
	}
	for _, line := range lines {
		var entry struct {
			Msg, Call, Executable, SHA256, Verdict, Errno string
			UID                                           int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		if entry.Msg != "denied" || entry.Call != "socket" || entry.Executable != args[len(args)-3] || len(entry.SHA256) != 64 || entry.Errno != "EAFNOSUPPORT" || entry.UID != os.Geteuid() {
			t.Errorf("%s", line)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Pipes end when the command's ends do.
func TestRunInPipes(t *testing.T) {
	run, daemon := strings.Join(underRun(), " "), mark(t)
	for _, test := range []struct{ name, script, want string }{
		{"a reader that has enough", run + " yes | head -n 1", "y\n"},
		{"a writer that ends", "echo text | " + run + " cat", "text\n"},
		{"a daemon that closed its descriptors", `x=$(` + run + ` sh -c 'setsid ` + daemon + ` <&- >&- 2>&- & echo out'); echo "$x"`, "out\n"},
		{"the same, with standard error", `x=$(` + run + ` sh -c 'setsid ` + daemon + ` <&- >&- 2>&- & echo out' 2>&1); echo "$x"`, "out\n"},
		{"several", run + " echo a | " + run + " cat | " + run + " tr a b", "b\n"},
		{"one in another", run + " sh -c 'echo inner'", "inner\n"},
	} {
		cmd := exec.Command("sh", "-c", test.script)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
			if out.String() != test.want {
				t.Errorf("%s: %q, want %q", test.name, out.String(), test.want)
			}
		case <-time.After(patience):
			t.Errorf("%s: it does not end", test.name)
			killMarked(daemon)
			<-ended
		}
		killMarked(daemon)
	}
}

// killMarked kills processes by their whole command line; see mark.
func killMarked(line string) {
	for _, pid := range marked(line) {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// marked lists the processes with a command line.
func marked(line string) (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || strings.ReplaceAll(strings.TrimSuffix(string(text), "\x00"), "\x00", " ") != line {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestRunInParallel(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			script := fmt.Sprintf(`"$@"; exit %d`, i)
			out := runOf(t, underRun(append([]string{"sh", "-c", script, "sh"}, selfAs(t, "socket")...)...))
			if out.status != i || out.stdout != "address family not supported by protocol\n" {
				t.Errorf("run %d: %+v", i, out)
			}
		})
	}
	wg.Wait()
}
