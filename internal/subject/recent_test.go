package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestRecent(t *testing.T) {
	r := agedReader(t, Options{Digests: 8, Recent: time.Hour})
	path := installed(t)
	sum := sha(t, path)
	c := start(t, command("then", path, program))
	first := r.Look(c.pid)
	if first.Recent || first.Binary != path {
		t.Errorf("the first look: %+v", first)
	}
	tracer := start(t, command("trace", program, fmt.Sprint(c.pid)))
	why := fmt.Sprintf("traced by thread %d", tracer.tid())

	first.Recent = true
	if s := r.Glance(c.pid); !reflect.DeepEqual(s, first) {
		t.Errorf("%+v\nwant %+v", s, first)
	}
	again := r.Look(c.pid)
	wantBinary(t, again, "", false, why)
	if again.Recent {
		t.Error("Look took something from before")
	}
	tracer.end()

	for _, tt := range []struct {
		name   string
		change func()
	}{
		{"renamed", func() { must(t, os.Rename(path, path+"2")) }}, // changes the change time
		{"old", func() { r.tasks[0].at = r.tasks[0].at.Add(-time.Hour) }},
		{"execve", func() {
			_, err := c.stdin.Write([]byte("x"))
			must(t, err)
			waitFor(t, func() bool { exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid)); return exe == program })
		}},
	} {
		r.Look(c.pid)
		if s := r.Glance(c.pid); !s.Recent || s.SHA256 != sum {
			t.Errorf("before %s: %+v", tt.name, s)
		}
		tt.change()
		s := r.Glance(c.pid)
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid))
		must(t, err)
		wantBinary(t, s, exe, false, "")
		if s.Recent {
			t.Errorf("%s: nothing is read again", tt.name)
		}
	}
	c.end()
	wantNothing(t, r.Glance(c.pid), fmt.Sprintf("open /proc/%d: no such file or directory", c.pid))
}

// Where a change of the content may not show, the digest is always of now.
func TestRecentDigest(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "subject-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, copyFile(program, filepath.Join(dir, "subject")))
	onTmpfs := start(t, command("wait", filepath.Join(dir, "subject")))
	onDisk := start(t, command("wait", program))

	aged := agedReader(t, Options{Digests: 8, Recent: time.Hour})
	young := newReader(t, Options{Digests: 8, Recent: time.Hour})
	young.digests.now = func() time.Time { return time.Time{} }
	without := newReader(t, Options{Recent: time.Hour})
	for _, tt := range []struct {
		name   string
		r      *Share
		c      *started
		recent bool
	}{
		{"on disk", aged, onDisk, true},
		{"on disk, changed just now", young, onDisk, false},
		{"on tmpfs", aged, onTmpfs, false},
		{"on tmpfs, without a digest", without, onTmpfs, true},
	} {
		tt.r.Look(tt.c.pid)
		if s := tt.r.Glance(tt.c.pid); s.Recent != tt.recent || s.Binary == "" {
			t.Errorf("%s: %+v, want recent %v", tt.name, s, tt.recent)
		}
	}
}

func TestSetUnits(t *testing.T) {
	r := newReader(t, Options{})
	for _, wanted := range []bool{true, false} {
		r.SetUnits(wanted)
		s := r.Look(os.Getpid())
		if told := s.Unit != "" || s.Why(Unit) != ""; told != wanted {
			t.Errorf("units wanted %v: unit %q, because %q", wanted, s.Unit, s.Why(Unit))
		}
	}
}
