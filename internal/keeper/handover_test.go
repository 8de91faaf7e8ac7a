package keeper

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// dead waits until a process has ended.
func dead(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "a process ends", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
}

// An upgrade: the second keeper gets everything, also what the first agent leaves as
// it ends, and both never serve at once. The first one stands by, and gets it back.
func TestHandOver(t *testing.T) {
	w := newWorld(t)
	one := w.launch()
	first, _ := one.agent()
	one.do("keep one 1")
	for range 3 { // several messages
		one.do("many much")
	}
	two := w.launch()
	second, has := two.agent()
	if has != "listen and 602 descriptors" {
		t.Errorf("the second has %s", has)
	}
	if unix.Kill(first, 0) != unix.ESRCH {
		t.Error("the first agent runs beside the second")
	}
	two.told("note: keeper: took over 602 descriptors from process ")
	one.told("note: keeper: everything is handed over; standing by")
	two.do("forget much")
	two.do("keep two 2")
	conn, err := net.Dial("unix", w.listen)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()

	if status := two.end(unix.SIGTERM); status != 0 {
		t.Errorf("the second: status %d", status)
	}
	dead(t, second)
	if _, has = one.agent(); has != fmt.Sprintf("listen=socket one=1 session-1=%d session-1=%d two=2", first, second) &&
		has != fmt.Sprintf("listen=socket one=1 session-1=%d session-1=%d two=2", second, first) {
		t.Errorf("the first has %s back", has)
	}
	one.do("keep three 3")
	if status := one.end(unix.SIGTERM); status != 0 {
		t.Errorf("the first: status %d", status)
	}
	if left, _ := filepath.Glob(filepath.Dir(w.door) + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A keeper that stands by ends when it is asked to, and takes nothing along.
func TestStandByEnds(t *testing.T) {
	w := newWorld(t)
	one := w.keeper()
	one.do("keep one 1")
	two := w.launch()
	two.agent()
	one.told("standing by")
	if status := one.end(unix.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	// Nor does a third one that is killed while it stands by.
	three := w.launch()
	if _, has := three.agent(); !strings.Contains(has, "one=1") {
		t.Errorf("the third has %s", has)
	}
	two.told("standing by")
	two.end(unix.SIGKILL)
	three.do("keep three 3")
	// Who holds everything dies: who stands by begins anew, and can be reached.
	four := w.launch()
	four.agent()
	three.told("standing by")
	four.end(unix.SIGKILL)
	if _, has := three.agent(); has != "listen=socket" {
		t.Errorf("after a crash it has %s", has)
	}
}

// A keeper whose agent cannot begin leaves everything where it is.
func TestSickSuccessor(t *testing.T) {
	w := newWorld(t)
	one := w.launch()
	one.agent()
	one.do("keep one 1")
	sick := filepath.Join(t.TempDir(), "sick")
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	two := w.launch(sickVariable + "=" + sick)
	<-two.done
	if two.cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v", two.cmd.ProcessState)
	}
	if _, has := one.agent(); !strings.Contains(has, "one=1") {
		t.Errorf("the first has %s", has)
	}
	one.told("failed: hand-over: to process ", "which this one goes on without")
}

// Several at once, whatever they find: each serves in its turn, and one at the end.
func TestSeveralAtOnce(t *testing.T) {
	w := newWorld(t)
	var all []*process
	for range 4 {
		all = append(all, w.launch())
	}
	eventually(t, "all but one stand by", func() bool {
		n := 0
		for _, k := range all {
			if k.saw("standing by") {
				n++
			}
		}
		return n == 3
	})
	for _, k := range all {
		if !k.saw("standing by") {
			k.do("keep one 1")
			k.end(unix.SIGTERM)
		}
	}
	eventually(t, "one of the others has it", func() bool {
		for _, k := range all {
			if k.saw(" has listen", "one=1") {
				return true
			}
		}
		return false
	})
}

// dial connects to a keeper as another one, in the test.
func (w *world) dial() *link {
	w.t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: w.door, Net: "unixpacket"})
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := newLink(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(testPatience))
	w.t.Cleanup(func() { conn.Close() })
	return l
}

func (w *world) next(l *link) wire {
	w.t.Helper()
	m, err := l.receive(notify.MaxFDs)
	if err != nil {
		w.t.Fatal(err)
	}
	notify.CloseAll(m.fds)
	return m
}

// Whoever takes over dies, or errs, at any point before the end: the first keeper
// goes on with everything. The last line is the control, a hand-over that succeeds.
func TestSuccessorFails(t *testing.T) {
	hello := func(w *world) *link {
		l := w.dial()
		if err := l.send(wire{Kind: wishNow, Version: wireVersion}); err != nil {
			w.t.Fatal(err)
		}
		if m := w.next(l); m.Kind != begin || m.Count != 4 {
			w.t.Fatalf("%+v", m)
		}
		return l
	}
	all := func(w *world) *link {
		l := hello(w)
		if m := w.next(l); m.Kind != descriptors || len(m.Names) != 4 {
			w.t.Fatalf("%+v", m)
		}
		if err := l.send(wire{Kind: have, Count: 4}); err != nil {
			w.t.Fatal(err)
		}
		if m := w.next(l); m.Kind != complete {
			w.t.Fatalf("%+v", m)
		}
		return l
	}
	fails := map[string]func(*world){
		"after begin":    func(w *world) { hello(w).conn.Close() },
		"after complete": func(w *world) { all(w).conn.Close() },
		"wrong number": func(w *world) {
			l := hello(w)
			w.next(l)
			_ = l.send(wire{Kind: have, Count: 3})
			if m := w.next(l); m.Kind != back {
				w.t.Errorf("%+v", m)
			}
			l.conn.Close()
		},
		"out of turn": func(w *world) {
			l := hello(w)
			_ = l.send(wire{Kind: serving})
			w.next(l)
			if m := w.next(l); m.Kind != back {
				w.t.Errorf("%+v", m)
			}
			l.conn.Close()
		},
		"junk": func(w *world) {
			l := hello(w)
			_, _ = l.conn.Write([]byte("{\"kind\":"))
			l.conn.Close()
		},
		"descriptors": func(w *world) {
			l := all(w)
			_ = l.send(wire{Kind: serving, Names: []string{"x"}}, 0)
			l.conn.Close()
		},
	}
	w := newWorld(t)
	k := w.launch()
	k.agent()
	k.do("keep one 1")
	for name, fail := range fails {
		fail(w)
		_, has := k.agent()
		k.expect("agent says: <nil>")
		if !strings.Contains(has, "one=1") {
			t.Errorf("%s: the first has %s", name, has)
		}
		k.do("forget session-1")
		// The next one has as many descriptors as this one.
		k.do("keep session-1 x")
		k.do("forget session-1")
	}
	l := all(w)
	if err := l.send(wire{Kind: serving}); err != nil {
		t.Fatal(err)
	}
	if m := w.next(l); m.Kind != over {
		t.Errorf("control: %+v", m)
	}
	k.told("everything is handed over")
}

// One that takes everything, and then says nothing, and lets go of nothing, is
// killed: containers would wait for ever.
func TestSilentSuccessor(t *testing.T) {
	w := newWorld(t)
	k := w.launch(patienceVariable + "=100ms")
	k.agent()
	k.do("keep one 1")
	silent := launch(t, nil, "test-silent", w.door)
	<-silent.done
	if s := silent.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != unix.SIGKILL {
		t.Errorf("it ended by %v", silent.cmd.ProcessState)
	}
	if _, has := k.agent(); !strings.Contains(has, "one=1") {
		t.Errorf("the first has %s", has)
	}
	k.told("does not let go, and is killed")
}

func testSilent(door string) int {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: door, Net: "unixpacket"})
	if err != nil {
		return 1
	}
	l, err := newLink(conn)
	if err != nil || l.send(wire{Kind: wishNow, Version: wireVersion}) != nil {
		return 1
	}
	select {}
}

// What is no keeper is turned away, and the agent goes on undisturbed.
func TestGuestsTurnedAway(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	for name, hello := range map[string]string{
		"junk": "GET / HTTP/1.0", "version": `{"kind":"now","version":2}`, "no version": `{"kind":"now"}`, "unknown": `{"kind":"now","version":1,"x":1}`,
		"kind": `{"kind":"have","version":1}`, "two": `{"kind":"now","version":1}{}`, "names": `{"kind":"now","version":1,"names":["x"]}`,
		"long": `{"kind":"` + strings.Repeat("x", maxWire) + `"}`,
	} {
		l := w.dial()
		if _, err := l.conn.Write([]byte(hello)); err != nil {
			t.Fatal(err)
		}
		if m := w.next(l); m.Kind != refused || m.Reason == "" {
			t.Errorf("%s: %+v", name, m)
		}
	}
	l := w.dial()
	if err := l.send(wire{Kind: wishNow, Version: wireVersion, Names: []string{"x"}}, 0); err != nil {
		t.Fatal(err)
	}
	if m := w.next(l); m.Kind != refused {
		t.Errorf("descriptors: %+v", m)
	}
	for range 3 * maxGuests { // silent, and gone
		w.dial().conn.Close()
	}
	k.do("keep two 2") // by the same agent
	if err := unix.Kill(pid, 0); err != nil {
		t.Error(err)
	}
	// It is in the way of nobody.
	two := w.launch()
	if _, has := two.agent(); !strings.Contains(has, "one=1") {
		t.Errorf("the second has %s", has)
	}
}

// Another user does not get anything, even where the socket lets everybody connect.
func TestAnotherUser(t *testing.T) {
	w := newWorld(t)
	k := w.launch()
	pid, _ := k.agent()
	k.do("keep one 1")
	nobody := func() string {
		cmd := exec.Command("/proc/self/exe", "test-silent", w.door)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan string, 1)
		go func() { _ = cmd.Wait(); ended <- cmd.ProcessState.String() }()
		defer cmd.Process.Kill()
		select {
		case how := <-ended:
			return how
		case <-time.After(testPatience):
			return "it hangs"
		case <-told(k, "is of user 65534"):
			return "refused"
		}
	}
	for _, dir := range []string{filepath.Dir(w.door), filepath.Dir(filepath.Dir(w.door))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if how := nobody(); how != "exit status 1" {
		t.Errorf("it connects: %s", how)
	}
	if err := os.Chmod(w.door, 0o666); err != nil {
		t.Fatal(err)
	}
	if how := nobody(); how == "it hangs" {
		t.Errorf("it is not refused: %s", how)
	}
	k.told("is of user 65534") // it may have ended before
	k.do("keep two 2")
	if err := unix.Kill(pid, 0); err != nil {
		t.Error(err)
	}
}

// told is closed when a line was seen.
func told(k *process, words string) <-chan struct{} {
	seen := make(chan struct{})
	go func() {
		for !k.saw(words) {
			time.Sleep(5 * time.Millisecond)
		}
		close(seen)
	}()
	return seen
}
