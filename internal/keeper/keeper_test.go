package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/manager"
)

func kill(t *testing.T, pid int, s unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// An agent may end in any way: the next one has everything.
func TestAgentStartsAgain(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	first, has := k.agent()
	if has != "listen=socket" {
		t.Errorf("at first it has %s", has)
	}
	k.do("keep one 1")
	k.do("keep two 2")
	k.do("keep one 11")
	k.do("forget two")
	kill(t, first, unix.SIGKILL)
	k.told("failed: agent: the agent was ended by killed; it is started again with the 2 descriptors that are kept")
	second, has := k.agent()
	if has != "listen=socket one=1 one=11" {
		t.Errorf("the second has %s", has)
	}
	// What it says last counts as well, also if it ends at once.
	kill(t, second, unix.SIGTERM)
	if _, has = k.agent(); !strings.Contains(has, "session-1=") {
		t.Errorf("the third has %s", has)
	}
	fmt.Fprintln(k.in, "exit")
	k.expect("the agent ended with status 5")
	k.agent()
	kill(t, k.cmd.Process.Pid, unix.SIGHUP)
	k.expect("agent reloads")
	if status := k.end(unix.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	k.told("4 descriptors are lost")
	left, _ := filepath.Glob(filepath.Dir(w.door) + "/*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An agent that cannot begin, and on which nothing relies, ends the keeper.
func TestAgentCannotBegin(t *testing.T) {
	w := newWorld(t)
	sick := filepath.Join(t.TempDir(), "sick")
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k := w.launch(sickVariable + "=" + sick)
	<-k.done
	if k.cmd.ProcessState.ExitCode() != 7 || !k.saw("ended: the agent ended with status 7") {
		t.Errorf("%v, %q", k.cmd.ProcessState, k.lines)
	}
	// One that served before is started until it serves.
	if err := os.Remove(sick); err != nil {
		t.Fatal(err)
	}
	k = w.launch(sickVariable + "=" + sick)
	pid, _ := k.agent()
	k.do("keep one 1")
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill(t, pid, unix.SIGKILL)
	k.expect("ended with status 7")
	k.expect("ended with status 7")
	if err := os.Remove(sick); err != nil {
		t.Fatal(err)
	}
	k.expect("agent says: <nil>")
}

// An agent that hangs is ended, and started again.
func TestWatchdog(t *testing.T) {
	k := newWorld(t).keeper(watchdogVariable + "=2s")
	k.do("keep one 1")
	k.do("hang")
	k.told("failed: watchdog: the agent has given no sign of life")
	if _, has := k.agent(); !strings.Contains(has, "one=1") {
		t.Errorf("it has %s", has)
	}
}

// With its keeper the agent ends: it would answer for containers that no other
// agent knows of.
func TestKeeperIsKilled(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	k.end(unix.SIGKILL)
	eventually(t, "the agent ends", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	// The next one begins anew, and cleans up.
	k = w.launch()
	if _, has := k.agent(); has != "listen=socket" {
		t.Errorf("it has %s", has)
	}
	if left, _ := filepath.Glob(w.door + ".notify-*"); len(left) != 1 {
		t.Errorf("%v", left)
	}
}

func (w *world) notify() manager.Manager {
	w.t.Helper()
	found, err := filepath.Glob(w.door + ".notify-*")
	if err != nil || len(found) != 1 {
		w.t.Fatalf("%v, %v", found, err)
	}
	return manager.Manager(found[0])
}

// Another process, even of root, has nothing kept and nothing taken away. Control:
// the agent says the same, and is heard.
func TestOthersAreNotHeard(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	m := w.notify()
	keep(m, "theirs", "x")
	if err := m.Forget("one"); err != nil {
		t.Fatal(err)
	}
	k.told("failed: peer: process ", " is not the agent, and is not heard")
	kill(t, pid, unix.SIGKILL)
	pid, has := k.agent()
	if has != "listen=socket one=1" {
		t.Errorf("it has %s", has)
	}
	k.do("forget one")
	k.do("keep theirs x")
	kill(t, pid, unix.SIGKILL)
	if _, has = k.agent(); has != "listen=socket theirs=x" {
		t.Errorf("control: it has %s", has)
	}
	// Only root can say anything at all.
	if info, err := os.Stat(string(m)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What no service manager takes is not taken, and costs nothing else.
func TestWhatIsNotKept(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	for _, name := range []string{"listen", "hand-over", "a:b", strings.Repeat("x", maxName+1)} {
		k.do("keep " + name + " x")
		k.told("failed: store: a container will not outlive the agent: ", " is no name for a descriptor")
	}
	k.do("say FDSTORE=1,FDNAME=none")
	k.told("there is no descriptor to keep")
	k.do("huge")
	k.told("failed: peer: a message of process ", "more than 65536 bytes")
	k.do("say MAINPID=1,READY=1,=,x,FDPOLL=0")
	kill(t, pid, unix.SIGKILL)
	if _, has := k.agent(); has != "listen=socket one=1" {
		t.Errorf("it has %s", has)
	}
}

// The store has an end, and everything in it can be passed on.
func TestStoreIsFull(t *testing.T) {
	for _, tt := range []struct {
		name      string
		times     int
		why, kept string
	}{
		{"C" + strings.Repeat("z", 6), 77, "200 more would be too many", "15200"}, // the agent's longest
		{strings.Repeat("x", 37), 17, "the names of more could not be passed to the next agent", "3200"},
	} {
		k := newWorld(t).launch()
		pid, _ := k.agent()
		for range tt.times {
			k.do("many " + tt.name)
		}
		k.told(tt.why)
		kill(t, pid, unix.SIGKILL)
		if _, has := k.agent(); has != "listen and "+tt.kept+" descriptors" {
			t.Errorf("%s: it has %s, want %s", tt.name, has, tt.kept)
		}
	}
}

// The socket of runtimes is made anew when its file has gone.
func TestSocketHasGone(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	if err := os.Remove(w.listen); err != nil {
		t.Fatal(err)
	}
	kill(t, pid, unix.SIGKILL)
	k.agent()
	conn, err := net.Dial("unix", w.listen)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestCheckPlace(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"open": 0o777, "sticky": 0o777 | os.ModeSticky, "group": 0o775, "theirs": 0o755, "fine": 0o755} {
		must(os.Mkdir(filepath.Join(dir, name), 0o700))
		must(os.Chmod(filepath.Join(dir, name), mode))
	}
	must(os.Mkdir(dir+"/open/in", 0o755))
	must(os.Mkdir(dir+"/sticky/in", 0o755))
	must(os.Chown(dir+"/theirs", 65534, 65534))
	must(os.Symlink(dir+"/open", dir+"/link"))
	for name, want := range map[string]string{
		"fine/s": "", "new/s": "", "sticky/in/s": "", // as /tmp is
		"open/s": "others may write", "sticky/s": "others may write", "group/s": "others may write", "open/in/s": "others may write", "link/s": "others may write",
		"theirs/s": "belongs to user 65534", "none/none/s": "no such file", strings.Repeat("x", maxPlace): "are the most",
	} {
		err := checkPlace(filepath.Join(dir, name))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
