package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/keeper"
)

// testKeeper keeps a testAgent.
func testKeeper(socket, policy, door string) error {
	return keeper.Run(keeper.Options{
		Listen: socket, HandOver: door, Args: []string{"test-agent", socket, policy},
		Note:   func(text string) { fmt.Println("note:", text) },
		Failed: printer{}.Failed,
	})
}

// kept starts an agent with a keeper in front of it, and waits until it serves.
func (w *world) kept(env ...string) *world {
	w.t.Helper()
	cmd := exec.Command(self, "test-keeper", w.socket, w.policy, filepath.Join(w.dir, "hand-over.sock"))
	cmd.Env = append(os.Environ(), env...)
	w.process = start(w.t, cmd)
	w.expect("note: serving on " + w.socket)
	return w
}

// agentOf returns the process of the agent that a keeper has started.
func (w *world) agentOf() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", w.cmd.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(text)) {
		n := 0
		if _, err := fmt.Sscan(pid, &n); err == nil {
			return n
		}
	}
	w.t.Fatalf("children: %q", text)
	return 0
}

// stopped reports whether no thread of a process runs: each stops in its own time.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || threads == nil {
		t.Fatalf("the threads of process %d: %v", pid, err)
	}
	return !slices.ContainsFunc(threads, func(name string) bool {
		text, err := os.ReadFile(name)
		return err == nil && !strings.Contains(string(text), "\nState:\tT")
	})
}

// Without a service manager, an agent that is killed loses no container: what is
// trapped meanwhile waits for the next agent, whose policy counts.
func TestKeptAgentIsKilled(t *testing.T) {
	w := newWorld(t).kept()
	granted, bare := w.container("granted", "one"), w.container("bare")
	granted.ask("socket", "ok")
	agent := w.agentOf()
	if err := unix.Kill(agent, unix.SIGSTOP); err != nil { // so that the call finds nobody
		t.Fatal(err)
	}
	eventually(t, "the agent stops", func() bool { return stopped(t, agent) })
	granted.in.Write([]byte("socket\n"))
	eventually(t, "the call waits", func() bool { return granted.calls(unix.SYS_SOCKET) })
	if err := unix.Kill(agent, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := granted.next(); got != "socket ok" {
		t.Errorf("a call that waited: %s", got)
	}
	w.expect("note: 2 containers taken back")
	bare.ask("socket", "EAFNOSUPPORT")
	w.container("new", "one").ask("socket", "ok")
}

// An upgrade: two keepers, each with an agent. A container does not notice, nor does
// a runtime that connects.
func TestKeptUpgrade(t *testing.T) {
	old := newWorld(t).kept()
	granted, bare := old.container("granted", "one"), old.container("bare")
	granted.ask("socket", "ok")

	next := *old
	next.write(policyHead + ruleOne + ruleTwo)
	next.kept()
	old.expect("note: keeper: everything is handed over")
	granted.ask("socket", "ok")
	bare.ask("socket", "EAFNOSUPPORT")
	next.container("new", "two").ask("socket", "ok")

	// The new one ends before the old one was asked to: nothing is lost.
	next.signal(unix.SIGTERM)
	if status := next.status(); status != 0 {
		t.Errorf("status %d", status)
	}
	granted.ask("socket", "ok")
	old.container("newer", "two").ask("socket", "ok")
}

// What a crash costs: a keeper that is killed takes the listeners along, and what is
// trapped fails for the rest of the container's life. It is denied, not open; new
// containers are served.
func TestKeeperCrash(t *testing.T) {
	w := newWorld(t).kept()
	c := w.container("c", "one")
	c.ask("socket", "ok")
	w.signal(unix.SIGKILL)
	w.status()
	eventually(t, "the listener is closed", func() bool {
		fmt.Fprintln(c.in, "socket")
		return c.next() == "socket ENOSYS"
	})
	w.kept()
	c.ask("socket", "ENOSYS")
	w.container("new", "one").ask("socket", "ok")
}
