package agent

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A container gets what its grants allow; a neighbour without grants gets
// nothing; and both are reported.
func TestServe(t *testing.T) {
	w := newWorld(t).agent()
	granted, bare := w.container("granted", "one"), w.container("bare")
	granted.ask("socket", "ok")
	bare.ask("socket", "EAFNOSUPPORT")
	w.expect("decided: bare socket allowed=false errno=97 the workload holds no grant")
	granted.ask("bind", "EBADF")
	if n := w.saw("listeners +1"); n != 2 {
		t.Errorf("%d listeners were counted, not 2", n)
	}
	bare.in.Close()
	w.expect("note: container \"bare\"", "ended")
	w.expect("listeners -1")
	granted.ask("socket", "ok")
}

// A container with missing or unreadable metadata has no grants.
func TestMetadata(t *testing.T) {
	w := newWorld(t).agent()
	for name, text := range map[string]string{
		"junk":    `{"grants":["one"]}`,
		"nothing": "",
	} {
		o := order{State: stateOf(name)}
		o.State.Metadata = text
		p := w.join(o, nil)
		p.ask("socket", "EAFNOSUPPORT")
	}
	if n := w.saw("failed: metadata: container \"junk\" is served without grants: "); n != 1 {
		t.Errorf("%d lines about the metadata, not 1", n)
	}
}

// A grant that the policy does not have is reported and ignored; a reload may
// bring it.
func TestReload(t *testing.T) {
	s := newSystemd(t, t.TempDir()+"/notify")
	w := newWorld(t).agent("NOTIFY_SOCKET=" + s.conn.LocalAddr().String())
	one, two := w.container("1", "one"), w.container("2", "two")
	w.expect(`failed: grant: container "2": the policy has no rule two`)
	one.ask("socket", "ok")
	two.ask("socket", "EAFNOSUPPORT")
	s.expect("READY=1", "STATUS=Serving 0 containers")
	s.forget()

	w.write("version: 2\nname: bad\n")
	w.signal(unix.SIGHUP)
	w.expect("failed: reload: the new policy was refused, and the old one kept", "version")
	s.expect("RELOADING=1", "MONOTONIC_USEC=")
	s.expect("READY=1", "STATUS=Serving 2 containers; the new policy was refused, and the old one kept: ")
	one.ask("socket", "ok")
	two.ask("socket", "EAFNOSUPPORT")
	s.forget()

	w.write(policyHead + ruleTwo)
	w.signal(unix.SIGHUP)
	w.expect("note: the policy was read again, and holds for 2 containers")
	s.expect("READY=1", "STATUS=Serving 2 containers; policy read at ")
	one.ask("socket", "EAFNOSUPPORT")
	two.ask("socket", "ok")
	three := w.container("3", "one", "two")
	three.ask("socket", "ok")
	if n := w.saw("ended"); n != 0 {
		t.Errorf("%d containers ended by a reload", n)
	}
}

// Without a store the calls of containers fail when the agent ends, gracefully
// or not.
func TestEndWithoutStore(t *testing.T) {
	for _, end := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		t.Run(end.String(), func(t *testing.T) {
			w := newWorld(t).agent()
			c := w.container("c", "one")
			w.signal(end)
			status := w.status()
			c.ask("socket", "ENOSYS")
			c.ask("bind", "ENOSYS")
			if end == unix.SIGKILL {
				return
			}
			if status != 0 {
				t.Errorf("status %d", status)
			}
			w.expect("failed: stop: 1 container lost")
			if _, err := os.Lstat(w.socket); !os.IsNotExist(err) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// The helper's death ends the agent, and the agent's death the helper.
func TestHelperEnds(t *testing.T) {
	w := newWorld(t).agent()
	helper := children(t, w.cmd.Process.Pid)[0]
	if err := unix.Kill(helper, unix.SIGTERM); err != nil { // as systemd may
		t.Fatal(err)
	}
	c := w.container("c", "one")
	c.ask("socket", "ok")
	if err := unix.Kill(helper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.expect("host error: the helper that makes sockets has ended (signal: killed)")
	if status := w.status(); status != 3 {
		t.Errorf("status %d", status)
	}

	w = newWorld(t).agent()
	helper = children(t, w.cmd.Process.Pid)[0]
	w.signal(unix.SIGKILL)
	w.status()
	eventually(t, "the helper ends", func() bool { return gone(helper) })
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, word := range strings.Fields(string(text)) {
			var n int
			fmt.Sscan(word, &n)
			pids = append(pids, n)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("process %d has no children", pid)
	}
	return pids
}

// No process of the same user can take descriptors out of the agent and its
// helper.
func TestNotDumpable(t *testing.T) {
	w := newWorld(t)
	w.who = &syscall.Credential{Uid: nobody, Gid: nobody}
	if err := os.Chown(w.dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	w.agent()
	spy := w.join(order{Silent: true}, w.who)
	for _, pid := range append(children(t, w.cmd.Process.Pid), w.cmd.Process.Pid) {
		spy.ask(fmt.Sprintf("spy %d", pid), "EPERM")
	}
	victim := w.join(order{Silent: true}, w.who)
	spy.ask(fmt.Sprintf("spy %d", victim.cmd.Process.Pid), "ok")
}

// The watchdog hears that all is well only while it is.
func TestWatchdog(t *testing.T) {
	s := newSystemd(t, "@afalg-policy-test-"+t.Name()+fmt.Sprint(os.Getpid()))
	w := newWorld(t).agent("NOTIFY_SOCKET="+s.conn.LocalAddr().String(), "WATCHDOG_USEC=600000")
	s.expect("WATCHDOG=1", "STATUS=Serving 0 containers")
	helper := children(t, w.cmd.Process.Pid)[0]

	stopped := func(what string) {
		t.Helper()
		failures := func(n int) {
			t.Helper()
			eventually(t, "the watchdog fails", func() bool { return w.saw("failed: watchdog: ", what) >= n })
		}
		failures(2) // messages on their way have arrived
		s.forget()
		failures(5)
		if n := s.told("WATCHDOG=1"); n > 0 {
			t.Errorf("%d signs of life: %s", n, what)
		}
	}
	unix.Kill(helper, unix.SIGSTOP)
	stopped("the helper does not answer")
	unix.Kill(helper, unix.SIGCONT)
	s.expect("WATCHDOG=1")
	if err := os.Rename(w.socket, w.socket+".away"); err != nil {
		t.Fatal(err)
	}
	stopped("connect to itself")
	if err := os.Rename(w.socket+".away", w.socket); err != nil {
		t.Fatal(err)
	}
	s.forget()
	s.expect("WATCHDOG=1")
	w.signal(unix.SIGTERM)
	if status := w.status(); status != 0 {
		t.Errorf("status %d", status)
	}
	s.expect("STOPPING=1")
}
