package subject

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	const patience = 3 * time.Minute // for a test that hangs
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("did not come about within %v", patience)
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// wantNothing checks that a subject without facts denies by itself.
func wantNothing(t *testing.T, s Subject, why string) {
	t.Helper()
	want := Subject{TID: s.TID}
	for _, f := range []Fact{Process, Binary, Digest, User, Capabilities, Unit, Containment} {
		want.Unknown = append(want.Unknown, Reason{f, why})
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v\nwant %+v", s, want)
	}
}

func TestNoThread(t *testing.T) {
	r := newReader(t, Options{Digests: 1, Units: true})
	wantNothing(t, r.Look(0), "no thread has the id 0 in this PID namespace")
	wantNothing(t, r.Look(-1), "no thread has the id -1 in this PID namespace")
	wantNothing(t, r.Look(1<<30), "open /proc/1073741824: no such file or directory")
	if got := r.Look(0).Unknown[1].String(); got != "binary: no thread has the id 0 in this PID namespace" {
		t.Error(got)
	}

	c := start(t, command("wait", program))
	if s := r.Look(c.pid); s.PID != c.pid {
		t.Errorf("%+v", s)
	}
	c.end()
	wantNothing(t, r.Look(c.pid), fmt.Sprintf("open /proc/%d: no such file or directory", c.pid))
}

// A process that has ended and was not waited for keeps only its number.
func TestZombie(t *testing.T) {
	r := newReader(t, Options{Digests: 1, Units: true})
	c := start(t, command("wait", program))
	wantBinary(t, r.Look(c.pid), program, false, "")
	c.stdin.Close()
	must(t, unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	s := r.Look(c.pid)
	wantBinary(t, s, "", false, "read the link exe: no such file or directory")
	wantDigest(t, s, "", "read the link exe: no such file or directory")
}

// The number of a process that is gone goes to another one.
func TestNumberUsedAgain(t *testing.T) {
	r := newReader(t, Options{Digests: 8})
	path := installed(t)
	for range 100 {
		first := start(t, command("wait", program))
		wantBinary(t, r.Look(first.pid), program, false, "")
		first.end()
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, first.pid-1), 0))
		second := start(t, as(command("wait", path), ordinary))
		if second.pid != first.pid {
			continue // somebody else was faster
		}
		s := r.Look(second.pid)
		wantBinary(t, s, path, false, "")
		wantDigest(t, s, sha(t, path), "")
		wantUser(t, s, ordinary, "")
		return
	}
	t.Fatal("no number was given twice in 100 tries")
}

func TestDescriptors(t *testing.T) {
	before := descriptors(t)
	whole, err := NewReader(Options{Digests: 8, Units: true})
	must(t, err)
	r := whole.Share(nil)
	c := start(t, command("threads", program, fmt.Sprint(maxTasks+20)))
	withChild := descriptors(t)
	for range 2 {
		for _, tid := range c.tids {
			wantBinary(t, r.Look(tid), program, false, "")
		}
		if open := descriptors(t) - withChild; open != 3*maxTasks {
			t.Errorf("%d descriptors for %d tasks", open, maxTasks)
		}
	}
	noneInherited(t)
	whole.Close()
	whole.Close()
	wantNothing(t, r.Look(c.tid()), "the reader is closed")
	c.end()
	if open := descriptors(t) - before; open > 0 {
		t.Errorf("%d descriptors are left open", open)
	}
}

func noneInherited(t *testing.T) {
	t.Helper()
	out, err := exec.Command("sh", "-c", "ls -l /proc/$$/fd; true").Output()
	must(t, err)
	if strings.Contains(string(out), "/proc/") {
		t.Errorf("a child inherits\n%s", out)
	}
}

// The descriptors for a task that is gone are closed when its number appears
// again.
func TestDescriptorsOfTheDead(t *testing.T) {
	r := newReader(t, Options{})
	c := start(t, command("wait", program))
	r.Look(c.pid)
	c.end()
	before := descriptors(t)
	r.Look(c.pid)
	if open := descriptors(t) - before; open != -2 {
		t.Errorf("%d descriptors more, want -2", open)
	}
}

func TestConcurrentLooks(t *testing.T) {
	r := agedReader(t, Options{Digests: 2, Units: true})
	c := start(t, command("threads", program, "4"))
	sum := sha(t, program)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 50 {
				tid := c.tids[(i+j)%len(c.tids)]
				if s := r.Look(tid); s.TID != tid || s.PID != c.pid || s.Binary != program || s.SHA256 != sum {
					t.Errorf("%+v", s)
				}
			}
		})
	}
	group.Wait()
	if len(r.tasks) != len(c.tids) {
		t.Errorf("%d handles of %d threads", len(r.tasks), len(c.tids))
	}
}

func TestNewReaderRefuses(t *testing.T) {
	for _, o := range []Options{{Digests: -1}, {MaxDigest: -1}} {
		want := fmt.Sprintf("reader of subjects: %d digests of up to %d bytes: negative", o.Digests, o.MaxDigest)
		if _, err := NewReader(o); err == nil || err.Error() != want {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := openProc("/"); err == nil || err.Error() != "/: not a procfs" {
		t.Errorf("/ as /proc: %v", err)
	}
	// In the parent's /proc, process 1 of the new namespace is another process.
	out, err := command("look", "unshare", "-pf", program, "plain").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "/proc: ") {
		t.Errorf("in another PID namespace: %v\n%s", err, out)
	}
}

func BenchmarkLook(b *testing.B) {
	c := start(b, as(command("wait", "setpriv", "--no-new-privs", program), ordinary))
	for _, bb := range []struct {
		name    string
		options Options
	}{
		{"path", Options{}},
		{"path and digest", Options{Digests: 8}},
		{"path and unit", Options{Units: true}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := agedReader(b, bb.options)
			b.ReportAllocs()
			for b.Loop() {
				if s := r.Look(c.pid); s.Binary == "" || !s.Contained {
					b.Fatal(s.Unknown)
				}
			}
		})
	}
	b.Run("first", func(b *testing.B) {
		r := agedReader(b, Options{Digests: 8})
		for b.Loop() {
			if s := r.Look(c.pid); s.Binary == "" {
				b.Fatal(s.Unknown)
			}
			r.Close()
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	c := start(b, command("wait", program))
	r := newReader(b, Options{Digests: 1})
	info, err := os.Stat(program)
	must(b, err)
	r.digests.now = func() time.Time { return time.Time{} } // nothing is old enough to be kept
	b.SetBytes(info.Size())
	for b.Loop() {
		if s := r.Look(c.pid); s.SHA256 == "" {
			b.Fatal(s.Unknown)
		}
	}
}
