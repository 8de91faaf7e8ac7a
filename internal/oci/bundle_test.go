package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

func readBundle(t *testing.T, dir string) specs.Spec {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// specOf is a spec of which nothing but the text counts.
func specOf(t *testing.T, text string) *Spec {
	t.Helper()
	c, err := profile.ReadConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &Spec{Config: c}
}

func TestMake(t *testing.T) {
	base, origin := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(origin, link); err != nil {
		t.Fatal(err)
	}
	const spec = `{ "root" : {"path":"rootfs"}, "x": 1e400,
 "mounts": [
  {"destination": "/a", "type": "bind", "source": "data"},
  {"destination": "/b", "type": "none", "source": "../up", "options": ["ro", "rbind"]},
  {"destination": "/c", "type": "bind", "source": "/abs"},
  {"destination": "/proc", "type": "proc", "source": "proc"},
  {"destination": "/d"}
 ]}`
	b := Bundles{Dir: filepath.Join(base, "bundles")}
	dir, err := b.Make(specOf(t, spec), link, filepath.Join(base, "state", "c1"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"rootfs"`, `"`+origin+`/rootfs"`, `"data"`, `"`+origin+`/data"`, `"../up"`, `"`+filepath.Dir(origin)+`/up"`).Replace(spec)
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
	if entries, err := os.ReadDir(origin); err != nil || len(entries) > 0 {
		t.Errorf("the caller's bundle: %v, %v", entries, err)
	}
	for _, path := range []string{b.Dir, filepath.Dir(dir), dir, filepath.Join(dir, ConfigName)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestOrigin: through however many fronts a container comes, its platform knows
// it by the bundle that the first caller brought.
func TestOrigin(t *testing.T) {
	base := t.TempDir()
	origin, state := filepath.Join(base, "web"), filepath.Join(base, "state", "c1")
	if err := os.Mkdir(origin, 0o700); err != nil {
		t.Fatal(err)
	}
	b := Bundles{Dir: filepath.Join(base, "bundles")}
	dir := origin
	for range 3 {
		if got := b.Origin(dir); got != origin {
			t.Fatalf("%s is of %s", dir, got)
		}
		var err error
		if dir, err = b.Make(specOf(t, "{}"), dir, state); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.Origin(dir + "/"); got != origin {
		t.Errorf("%s/ is of %s", dir, got)
	}
	// A link that others made says nothing.
	elsewhere := filepath.Join(base, "other", "key", "random")
	if err := errors.Join(os.MkdirAll(elsewhere, 0o700), os.Symlink(origin, filepath.Join(elsewhere, "origin"))); err != nil {
		t.Fatal(err)
	}
	if got := b.Origin(elsewhere); got != elsewhere {
		t.Errorf("%s is of %s", elsewhere, got)
	}
	if err := os.Chmod(b.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := b.Origin(dir); got != dir {
		t.Errorf("%s, to which all can write, is of %s", dir, got)
	}
}

func TestMakeRefuses(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, dir, spec, origin, want string }{
		{"a directory that all write to", open, "{}", "/tmp", "is no directory that only this user can write to"},
		{"no bundle", t.TempDir(), "{}", "/nowhere", "no such file"},
		{"a root that is no text", t.TempDir(), `{"root": {"path": null}}`, "/tmp", "is no text"},
		{"a source that is no text", t.TempDir(), `{"mounts": [{"type": "bind", "source": null}]}`, "/tmp", "is no text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := Bundles{Dir: tt.dir}.Make(specOf(t, tt.spec), tt.origin, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, %v; want an error with %s", dir, err, tt.want)
			}
			if entries, err := os.ReadDir(tt.dir); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// TestFull writes a bundle to a full disk.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	big := `{"x": "` + strings.Repeat("x", 1<<20) + `"}`
	b := Bundles{Dir: filepath.Join(dir, "bundles")}
	if _, err := b.Make(specOf(t, big), "/tmp", "/nowhere/c1"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v", err)
	}
	left, err := filepath.Glob(filepath.Join(b.Dir, "*", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := b.Make(specOf(t, "{}"), "/tmp", "/nowhere/c1"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// age makes all bundles and their homes old.
func age(t *testing.T, b Bundles) {
	t.Helper()
	bundles, err1 := filepath.Glob(filepath.Join(b.Dir, "*", "*"))
	homes, err2 := filepath.Glob(filepath.Join(b.Dir, "*"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-2 * startLimit)
	for _, d := range slices.Concat(bundles, homes) {
		if info, err := os.Lstat(d); err != nil || !info.IsDir() {
			continue
		}
		if err := os.Chtimes(d, past, past); err != nil {
			t.Fatal(err)
		}
	}
}

// A bundle stays as long as its container, and not longer.
func TestSweep(t *testing.T) {
	b := Bundles{Dir: filepath.Join(t.TempDir(), "bundles")}
	states := t.TempDir()
	state := func(id string) string { return filepath.Join(states, id) }
	start := func(id string) string {
		dir, err := b.Make(specOf(t, "{}"), "/tmp", state(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(state(id), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	there := func(dir string) bool { return !gone(dir) }
	lives, young := start("lives"), ""
	dies := start("dies")
	unknown, err := b.Make(specOf(t, "{}"), "/tmp", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(state("dies")); err != nil {
		t.Fatal(err)
	}
	start("another")
	if !there(dies) {
		t.Error("a young bundle is gone, whose container may yet come")
	}
	age(t, b)
	young = start("young")
	if err := os.RemoveAll(state("young")); err != nil {
		t.Fatal(err)
	}
	start("one more")
	for dir, want := range map[string]bool{lives: true, dies: false, filepath.Dir(dies): false, young: true, unknown: true} {
		if there(dir) != want {
			t.Errorf("%s is there: %v", dir, !want)
		}
	}
	// A container that is restarted again and again leaves one bundle.
	var last string
	for range 5 {
		if err := os.RemoveAll(state("lives")); err != nil {
			t.Fatal(err)
		}
		age(t, b)
		last = start("lives")
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(last), "*", ConfigName))
	if err != nil || !slices.Equal(left, []string{filepath.Join(last, ConfigName)}) {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Two creates of one bundle at once get a spec each.
func TestTogether(t *testing.T) {
	b := Bundles{Dir: filepath.Join(t.TempDir(), "bundles")}
	origin, states := t.TempDir(), t.TempDir()
	const n = 100
	dirs := make([]string, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			spec := fmt.Sprintf(`{"hostname": "h%d"}`, i)
			dir, err := b.Make(specOf(t, spec), origin, filepath.Join(states, fmt.Sprint("c", i%3)))
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	wait.Wait()
	for i, dir := range dirs {
		if got := readBundle(t, dir).Hostname; got != fmt.Sprintf("h%d", i) {
			t.Errorf("bundle %d has the spec of %s", i, got)
		}
	}
}

func TestReadState(t *testing.T) {
	pid := otherNamespace(t)
	valid := fmt.Sprintf(`{"ociVersion": "1.0.2", "id": "a", "status": "creating", "pid": %d, "bundle": "/b"}`, pid)
	if s, err := ReadState([]byte(valid)); err != nil || s.ID != "a" {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := ReadState([]byte(strings.Replace(valid, "creating", "created", 1))); err != nil {
		t.Errorf("as crun says it: %v", err)
	}
	if _, err := ReadState([]byte(strings.Replace(valid, "creating", "stopped", 1))); err != nil {
		t.Errorf("as runc says it of what it restores: %v", err)
	}
	self := fmt.Sprint(os.Getpid())
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "unexpected end of JSON input"},
		{"a spec", unconfinedSpec, "this is no state of a container"},
		{"running", strings.Replace(valid, "creating", "running", 1), "registered for another stage"},
		{"stopped", strings.Replace(strings.Replace(valid, "creating", "stopped", 1), fmt.Sprint(pid), "0", 1), "registered for another stage"},
		{"no process", strings.Replace(valid, fmt.Sprint(pid), "0", 1), "names no process"},
		{"among the container's files", strings.Replace(valid, fmt.Sprint(pid), self, 1), "is in the mount namespace of this hook"},
		{"a process that is gone", strings.Replace(valid, fmt.Sprint(pid), "4194305", 1), "no such file"},
		{"a relative bundle", strings.Replace(valid, "/b", "b", 1), "is no absolute path"},
		{"twice", strings.Replace(valid, `"id": "a"`, `"id": "a", "id": "b"`, 1), "stands twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ReadState([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want an error with %s", err, tt.want)
			}
		})
	}
}

func TestSealed(t *testing.T) {
	bundle := func() string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ConfigName), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if err := Sealed(bundle()); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		name, want string
		spoil      func(dir string) error
	}{
		{"a directory of all", "can be written by others", func(dir string) error { return os.Chmod(dir, 0o777) }},
		{"a file of all", "can be written by others", func(dir string) error { return os.Chmod(filepath.Join(dir, ConfigName), 0o666) }},
		{"somebody's directory", "belongs to user 1000", func(dir string) error { return os.Chown(dir, 1000, 0) }},
		{"somebody's file", "belongs to user 1000", func(dir string) error { return os.Chown(filepath.Join(dir, ConfigName), 1000, 0) }},
		{"a link to somebody's directory", "belongs to user 1000", func(dir string) error {
			other := bundle()
			config := filepath.Join(dir, ConfigName)
			return errors.Join(os.Chown(other, 1000, 0), os.Remove(config), os.Symlink(filepath.Join(other, ConfigName), config))
		}},
		{"no spec", "no such file", func(dir string) error { return os.Remove(filepath.Join(dir, ConfigName)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := bundle()
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if err := Sealed(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want an error with %s", err, tt.want)
			}
		})
	}
}
