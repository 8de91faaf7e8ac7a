package live

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/testing/child"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func notify(c chan<- os.Signal) { signal.Notify(c, unix.SIGUSR1) }

// kindOf names the subject of an error.
func kindOf(err error) string {
	var unable *hosterr.Error
	var general *generalError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &general):
		return "host"
	case errors.As(err, &unable):
		return "this process on this host"
	}
	return "input"
}

// summary prints the groups of a process, with the threads of each counted as
// one or more.
func summary(p Process) string {
	var lines []string
	for _, g := range p.Groups() {
		lines = append(lines, fmt.Sprintf("%v: %d programs, %d instructions", g.Stack.Mode, len(g.Stack.Filter), g.Stack.Instructions()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestRead(t *testing.T) {
	tests := []struct {
		role string
		want string
	}{
		{"plain", "no filter: 0 programs, 0 instructions"},
		{"stack", "filtered: 2 programs, 8 instructions"},
		{"threads", "filtered: 1 programs, 4 instructions\nfiltered: 2 programs, 8 instructions\nno filter: 0 programs, 0 instructions"},
		{"strict", "no filter: 0 programs, 0 instructions\nstrict mode: 1 programs, 19 instructions"},
	}
	for _, tt := range tests {
		t.Run(tt.role, func(t *testing.T) {
			c := start(t, tt.role, nil)
			tids, err := threads(c.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Read(c.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, summary(p)); d != "" {
				t.Error(d)
			}
			for _, tid := range tids {
				if !slices.ContainsFunc(p.Threads, func(t Thread) bool { return t.TID == tid }) {
					t.Errorf("thread %d was not asked", tid)
				}
			}
			if p.Command != "exe" {
				t.Errorf("command %q", p.Command)
			}
			c.End()
		})
	}
}

// TestOrder reads the very same programs, the oldest first.
func TestOrder(t *testing.T) {
	c := start(t, "stack", nil)
	p, err := Read(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(twoFilters, p.Threads[0].Stack.Filter); d != "" {
		t.Error(d)
	}
	if a, b := newStack(Filtered, twoFilters), newStack(Filtered, cbpf.Filter{denyReboot, denyMount}); a.ID == b.ID {
		t.Error("the order does not tell stacks apart")
	}
	if id := newStack(Filtered, twoFilters).ID; id != p.Threads[0].Stack.ID {
		t.Errorf("ID %s, want %s", p.Threads[0].Stack.ID, id)
	}
}

func TestErrors(t *testing.T) {
	filtered := fmt.Sprint(start(t, "stack", nil).Process.Pid)
	threaded := start(t, "threads", nil)
	tids, err := threads(threaded.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	zombie := start(t, "plain", nil)
	zombie.In.Close()
	waitFor(t, func() bool { s, _ := readStatus(procPath(zombie.Process.Pid)); return s.ended() })
	traced := start(t, "stack", nil)
	tracer := start(t, "hold", nil, fmt.Sprint(traced.Process.Pid))

	checkErrors(t, []errorTest{
		{"no such process", "read", nil, "4194305", "input read the filters of process 4194305: there is no such process any more"},
		{"zero", "read", nil, "0", "input read the filters of process 0: there is no such process any more"},
		{"negative", "read", nil, "-1", "input read the filters of process -1: there is no such process any more"},
		{"a kernel thread", "read", nil, "2", "input read the filters of process 2: it is a kernel thread, which makes no system calls"},
		{"a zombie", "read", nil, fmt.Sprint(zombie.Process.Pid),
			"input read the filters of process PID: it is a zombie, which has no filter: there is no such process any more"},
		{"a thread", "read", nil, fmt.Sprint(tids[1]),
			fmt.Sprintf("input read the filters of process PID: it is a thread of process %d: ask about that", threaded.Process.Pid)},
		{"traced already", "read", nil, fmt.Sprint(traced.Process.Pid),
			fmt.Sprintf("this process on this host read the filters of process PID: thread PID: process %d traces it already, and there can be only one tracer: end that first (a debugger, strace)", tracer.Process.Pid)},
		{"without privileges", "read", asNobody, filtered,
			"host read the filters of process PID: thread PID: the kernel shows filters only to a process with CAP_SYS_ADMIN: run this as root"},
		{"under a filter", "read under a filter", nil, filtered,
			"host read the filters of process PID: thread PID: this program is itself under seccomp (filtered): the kernel shows filters only to a process without; run it outside of the container or unit"},
		{"without privileges, a process without a filter", "read", asNobody, fmt.Sprint(os.Getpid()), "ok <nil>"},
	})
}

func TestErrorsOfUserNamespaces(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	filtered := fmt.Sprint(start(t, "stack", nil).Process.Pid)
	contained := start(t, "stack", inUserNamespace)
	checkErrors(t, []errorTest{
		{"in another user namespace, from the first one", "read", nil, fmt.Sprint(contained.Process.Pid), "ok <nil>"},
		{"from another user namespace", "read", inUserNamespace, filtered,
			"host read the filters of process PID: thread PID: the kernel shows filters only to a process with CAP_SYS_ADMIN in the initial user namespace: run this as root outside of every container"},
	})
}

// errorTest has a child read the filters of a process. PID in the child's
// answer stands for that process.
type errorTest struct {
	name, role string
	change     func(*exec.Cmd)
	pid        string
	want       string
}

func checkErrors(t *testing.T, tests []errorTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got, _ := strings.Cut(strings.TrimSpace(answer(t, tt.role, tt.change, tt.pid)), " ")
			want := strings.ReplaceAll(tt.want, "PID", tt.pid)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestSelf shows that this test, which is under no filter, knows so without
// tracing.
func TestSelf(t *testing.T) {
	p, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(p); got != "no filter: 0 programs, 0 instructions" {
		t.Error(got)
	}
}

func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	const patience = 3 * time.Minute // for a test that hangs
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it did not come true within %v", patience)
}

// state is the process's state, without a tracer.
func state(t *testing.T, pid int) byte {
	t.Helper()
	s, err := readStatus(procPath(pid))
	if err != nil {
		t.Fatal(err)
	}
	if s.Tracer != 0 {
		t.Errorf("process %d is still traced", pid)
	}
	return s.State
}

// A process that a signal stopped stays stopped, and can be continued.
func TestStoppedStaysStopped(t *testing.T) {
	c := start(t, "stack", nil)
	stopped := func() bool { s, _ := readStatus(procPath(c.Process.Pid)); return s.State == 'T' }
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, stopped)
	for range 3 {
		if _, err := Read(c.Process.Pid); err != nil {
			t.Fatal(err)
		}
		waitFor(t, stopped)
		state(t, c.Process.Pid)
	}
	if err := c.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.End()
}

// A killed reader leaves nothing stopped.
func TestKilledReader(t *testing.T) {
	c := start(t, "stack", nil)
	reader := start(t, "hold", nil, fmt.Sprint(c.Process.Pid))
	s, err := readStatus(procPath(c.Process.Pid))
	if err != nil || s.State != 't' || processOf(s.Tracer) != reader.Process.Pid {
		t.Fatalf("it is not held: %+v, %v", s, err)
	}
	reader.Process.Kill()
	reader.Wait()
	waitFor(t, func() bool { return state(t, c.Process.Pid) == 'S' })
	c.End()
}

// Signals that arrive during the reading are neither lost nor invented.
func TestSignalsSurvive(t *testing.T) {
	c := start(t, "signals", nil)
	c.Expect("listening")
	const rounds = 300
	done := make(chan error)
	go func() {
		var err error
		for range rounds / 3 {
			if _, e := Read(c.Process.Pid); e != nil {
				err = e
			}
		}
		done <- err
	}()
	for range rounds {
		if err := unix.Kill(c.Process.Pid, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		c.Expect("signal") // each is taken before the next one is sent
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.In.Close()
	if rest, _ := c.Out.ReadString('\n'); rest != "" {
		t.Errorf("one signal too many: %q", rest)
	}
}

// A process that is killed at any moment is read or gone, and is reaped.
func TestDiesUnderWay(t *testing.T) {
	read, gone := 0, 0
	for i := range 60 {
		c := start(t, "stack", nil)
		go func() {
			time.Sleep(time.Duration(i) * 20 * time.Microsecond)
			c.Process.Kill()
		}()
		for {
			_, err := Read(c.Process.Pid)
			if err == nil {
				read++
				continue
			}
			if kindOf(err) != "input" || !errors.Is(err, errGone) {
				t.Fatal(err)
			}
			gone++
			break
		}
		if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
			// Read may have reaped it: tracer and parent are the same process.
			if !errors.Is(err, unix.ECHILD) {
				t.Fatal(err)
			}
		}
	}
	if read == 0 || gone != 60 {
		t.Errorf("read %d times, gone %d times", read, gone)
	}
}

// A thread that cannot stop is reported, and goes on afterwards.
func TestUninterruptible(t *testing.T) {
	c := start(t, "vfork", nil)
	_, err := Read(c.Process.Pid)
	if kindOf(err) != "this process on this host" || !strings.Contains(err.Error(), "it did not stop within 2s") {
		t.Fatal(err)
	}
	tids, err := threads(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		waitFor(t, func() bool { s, err := readStatus(taskPath(c.Process.Pid, tid)); return err == nil && s.Tracer == 0 })
	}
}

// Threads that come and go while they are listed are all met.
func TestAll(t *testing.T) {
	filtered := []int{start(t, "stack", nil).Process.Pid, start(t, "stack", nil).Process.Pid}
	open := start(t, "plain", nil).Process.Pid
	held := start(t, "stack", nil).Process.Pid
	start(t, "hold", nil, fmt.Sprint(held))
	h, err := All()
	if err != nil {
		t.Fatal(err)
	}
	byPID := map[int]Process{}
	for _, p := range h.Processes {
		byPID[p.PID] = p
	}
	a, b := byPID[filtered[0]], byPID[filtered[1]]
	if summary(a) != "filtered: 2 programs, 8 instructions" || a.Threads[0].Stack != b.Threads[0].Stack {
		t.Errorf("equal stacks are not shared: %v, %v", a, b)
	}
	if got := summary(byPID[open]); got != "no filter: 0 programs, 0 instructions" {
		t.Errorf("without a filter: %s", got)
	}
	if _, ok := byPID[2]; ok {
		t.Error("a kernel thread is among them")
	}
	if _, ok := byPID[os.Getpid()]; !ok {
		t.Error("this process is not among them")
	}
	i := slices.IndexFunc(h.Unread, func(u Unread) bool { return u.PID == held })
	if i < 0 || h.Unread[i].Command != "exe" || !strings.Contains(h.Unread[i].Err.Error(), "traces it already") {
		t.Errorf("unread: %v", h.Unread)
	}
}

// Who may read no filter sees all the same who is under none.
func TestVisible(t *testing.T) {
	filtered, open := start(t, "stack", nil).Process.Pid, start(t, "plain", nil).Process.Pid
	cmd := child.Command("visible")
	asNobody(cmd)
	out, err := child.Start(t, cmd).Out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	kinds, rest, _ := strings.Cut(out, " map[")
	read, unread, _ := strings.Cut(rest, "] map[")
	has := func(list string, pid int) bool {
		return slices.Contains(strings.Fields(strings.Trim(list, "]\n")), fmt.Sprintf("%d:true", pid))
	}
	if kinds != "host ok" || has(read, filtered) || !has(unread, filtered) || !has(read, open) {
		t.Errorf("processes %d and %d: %s", filtered, open, out)
	}
}
