package host

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestChangedSince shows that an installation touches no file if somebody
// changed one of them; the error shows the change.
func TestChangedSince(t *testing.T) {
	tests := map[string]struct {
		change func(dir string) error
		want   string // of the difference
	}{
		"content": {
			func(dir string) error {
				return os.WriteFile(dir+"/etc/app/conf", []byte("one\n2\nthree\nfour\n"), 0o640)
			},
			"--- DIR/etc/app/conf\n+++ DIR/etc/app/conf\n@@ -1,3 +1,4 @@\n one\n 2\n three\n+four\n",
		},
		"mode": {
			func(dir string) error { return os.Chmod(dir+"/etc/made/here/new.conf", 0o666) },
			"old mode 0644\nnew mode 0666\n--- DIR/etc/made/here/new.conf\n+++ DIR/etc/made/here/new.conf\n",
		},
		"owner": {
			func(dir string) error { return os.Chown(dir+"/etc/app/conf", 1, 2) },
			"owner 0:34, then 1:2\n--- DIR/etc/app/conf\n+++ DIR/etc/app/conf\n",
		},
		"removed": {
			func(dir string) error { return os.Remove(dir + "/etc/made/here/new.conf") },
			"",
		},
		"script removed": {
			func(dir string) error { return os.Remove(dir + "/etc/app/script") },
			"deleted file\n--- DIR/etc/app/script\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-#!/bin/sh\n-exec true\n",
		},
		"link": {
			func(dir string) error {
				return errors.Join(os.Remove(dir+"/etc/wants/unit"), os.Symlink("/elsewhere", dir+"/etc/wants/unit"))
			},
			"--- DIR/etc/wants/unit\n+++ DIR/etc/wants/unit\n@@ -1,1 +1,1 @@\n-link to /etc/unit\n+link to /elsewhere\n",
		},
		"a link in place of a file": {
			func(dir string) error {
				return errors.Join(os.Remove(dir+"/etc/app/conf"), os.Symlink("/etc/shadow", dir+"/etc/app/conf"))
			},
			"old mode 0640\nnew mode 0000\nowner 0:34, then 0:0\n--- DIR/etc/app/conf\n+++ DIR/etc/app/conf\n@@ -1,3 +1,1 @@\n-one\n-2\n-three\n+link to /etc/shadow\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, before, _ := stateOf(t, wantedOnce)
			must(t, tt.change(dir))
			changed := snapshot(t, dir)
			for _, files := range [][]File{nil, wantedOnce, wantedAgain} {
				err := put(dir, files, nil)
				if tt.want == "" { // it is as it was before
					must(t, err)
					equal(t, "uninstalled", before, snapshot(t, dir))
					return
				}
				var c *ChangedError
				if !errors.As(err, &c) {
					t.Fatalf("%v", err)
				}
				if got := strings.ReplaceAll(c.Diff, dir, "DIR"); got != tt.want {
					t.Errorf("shown:\n%swant:\n%s", got, tt.want)
				}
				if !strings.HasSuffix(err.Error(), " changed since docker was installed: take the change shown above back, run this again, and make the change after that") {
					t.Errorf("%v", err)
				}
				equal(t, "nothing is touched", changed, snapshot(t, dir))
			}
		})
	}
}

// A file that was restored by hand does not stop an installation.
func TestRestoredByHand(t *testing.T) {
	dir, before, _ := stateOf(t, wantedOnce)
	fill(t, dir)
	must(t, put(dir, nil, nil))
	equal(t, "uninstalled", before, snapshot(t, dir))
}

func TestInTheWay(t *testing.T) {
	conf := func(change func(p string) error) func(dir string) error {
		return func(dir string) error {
			p := dir + "/etc/app/conf"
			return errors.Join(os.Remove(p), change(p))
		}
	}
	tests := map[string]struct {
		change func(dir string) error
		want   string
	}{
		"a link": {
			conf(func(p string) error { return os.Symlink("/etc/other", p) }),
			"DIR/etc/app/conf is a link to /etc/other, which is neither replaced nor followed; put a file there",
		},
		"a dangling link": {
			conf(func(p string) error { return os.Symlink("nothing", p) }),
			"DIR/etc/app/conf is a link to nothing, which is neither replaced nor followed; put a file there",
		},
		"a directory": {
			conf(func(p string) error { return os.Mkdir(p, 0o755) }),
			"read DIR/etc/app/conf: it is neither a file nor a link; move it away",
		},
		"a FIFO": {
			conf(func(p string) error { return unix.Mkfifo(p, 0o644) }),
			"read DIR/etc/app/conf: it is neither a file nor a link; move it away",
		},
		"a huge file": {
			conf(func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, maxFile+1)) }),
			"read DIR/etc/app/conf: larger than 16384 KiB, the most that is read",
		},
		"a file where a directory is needed": {
			func(dir string) error { return os.WriteFile(dir+"/etc/made", nil, 0o644) },
			"write DIR/etc/made/here/new.conf: DIR/etc/made is not a directory",
		},
		"a link to a directory of others": {
			func(dir string) error {
				return errors.Join(os.Mkdir(dir+"/elsewhere", 0o755), os.Chown(dir+"/elsewhere", 1000, 1000), os.Symlink("/elsewhere", dir+"/etc/made"))
			},
			"write DIR/etc/made/here/new.conf: DIR/elsewhere belongs to user 1000: whoever can change it decides for every container; move the file to where only root can write, as below /etc/afalg-policy or in /usr/local/bin",
		},
		"a directory that all may write": {
			func(dir string) error { return os.Chmod(dir+"/etc/app", 0o777|fs.ModeSticky) },
			"write DIR/etc/app/script: DIR/etc/app can be written by others than root (dtrwxrwxrwx): whoever can change it decides for every container; move the file to where only root can write, as below /etc/afalg-policy or in /usr/local/bin",
		},
		"a file of others": {
			func(dir string) error { return os.Chown(dir+"/etc/app/conf", 1000, 0) },
			"write DIR/etc/app/conf: DIR/etc/app/conf belongs to user 1000: whoever can change it decides for every container; chown root DIR/etc/app/conf, or move the file to where only root can write, as below /etc/afalg-policy or in /usr/local/bin",
		},
		"a file that a group may write": {
			func(dir string) error { return os.Chmod(dir+"/etc/app/conf", 0o660) },
			"write DIR/etc/app/conf: DIR/etc/app/conf can be written by others than root (-rw-rw----): whoever can change it decides for every container; chmod go-w DIR/etc/app/conf, or move the file to where only root can write, as below /etc/afalg-policy or in /usr/local/bin",
		},
		"a link loop": {
			func(dir string) error { return os.Symlink("made", dir+"/etc/made") },
			"DIR/etc/made/here: too many links",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := fixture(t)
			must(t, tt.change(dir))
			before := snapshotOf(t, dir)
			err := put(dir, wantedOnce, nil)
			if got := strings.ReplaceAll(errorText(err), dir, "DIR"); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			equal(t, "nothing is touched", before, snapshotOf(t, dir))
		})
	}
}

// snapshotOf leaves out large files.
func snapshotOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := snapshot(t, dir)
	for name, text := range tree {
		tree[name] = text[:min(len(text), 200)]
	}
	return tree
}

func errorText(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// A link to a directory of root is followed, inside the root.
func TestLinkedDirectory(t *testing.T) {
	dir := fixture(t)
	must(t, os.Mkdir(dir+"/elsewhere", 0o755))
	must(t, os.Symlink("/elsewhere", dir+"/etc/made"))
	before := snapshot(t, dir)
	must(t, put(dir, wantedOnce, nil))
	if got, err := os.ReadFile(dir + "/elsewhere/here/new.conf"); string(got) != "new\n" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, put(dir, nil, nil))
	equal(t, "uninstalled", before, snapshot(t, dir))
}

// Of two platforms that share a directory, the last removes it.
func TestSharedDirectory(t *testing.T) {
	dir := fixture(t)
	before := snapshot(t, dir)
	install := func(name string, files []File) {
		t.Helper()
		h, err := Open(dir)
		must(t, err)
		defer h.Close()
		unlock, err := h.Lock()
		must(t, err)
		defer unlock()
		old, err := h.ReadRecord(name)
		must(t, err)
		var next *Record
		if files != nil {
			next = NewRecord(name, "test", nil)
		}
		c, err := h.Plan(old, files, next)
		must(t, err)
		must(t, c.Apply())
	}
	for _, order := range [][2]string{{"docker", "podman"}, {"podman", "docker"}} {
		install("docker", []File{{Path: "/etc/shared/deep/docker", Mode: Plain}})
		install("podman", []File{{Path: "/etc/shared/deep/podman", Mode: Plain}})
		install(order[0], nil)
		if _, err := os.Stat(filepath.Join(dir, "etc/shared/deep", order[1])); err != nil {
			t.Errorf("%s went with %s: %v", order[1], order[0], err)
		}
		install(order[1], nil)
		equal(t, "both uninstalled", before, snapshot(t, dir))
	}
}

func TestRecordDamaged(t *testing.T) {
	dir, _, _ := stateOf(t, wantedOnce)
	p := filepath.Join(dir, RecordPath("docker"))
	good, err := os.ReadFile(p)
	must(t, err)
	for text, want := range map[string]string{
		"":                                  "EOF",
		"{":                                 "unexpected EOF",
		`{"version":2}`:                     "its version is 2, and this program knows 1",
		`{"version":1,"platform":"podman"}`: `it is about "podman"`,
		`{"version":1,"platform":"docker"}`: `its phase is ""`,
		`{"version":1,"platform":"docker","phase":"installed","files":[{"path":"etc"}]}`:          "it has a path that is not absolute",
		`{"version":1,"platform":"docker","phase":"installed","files":[{"path":"/etc/../../x"}]}`: "it has a path that is not absolute",
		`{"version":1,"platform":"docker","phase":"installed","further":1}`:                       `json: unknown field "further"`,
		string(bytes.Replace(good, []byte(`"mode": 420`), []byte(`"mode": "x"`), 1)):              "json: cannot unmarshal string into Go struct field node.files.after.mode of type fs.FileMode",
	} {
		must(t, os.WriteFile(p, []byte(text), 0o600))
		before := snapshot(t, dir)
		got := strings.ReplaceAll(errorText(put(dir, nil, nil)), dir, "DIR")
		if want := "the record DIR/var/lib/afalg-policy/installed/docker.json cannot be used: " + want + "; use the program that wrote it, or restore the files by hand and remove it"; got != want {
			t.Errorf("%q:\n%s\nwant %s", text, got, want)
		}
		equal(t, text, before, snapshot(t, dir))
	}
	must(t, os.WriteFile(p, good, 0o600))
	must(t, os.Chown(p, 1000, 0))
	if got := errorText(put(dir, nil, nil)); !strings.Contains(got, "belongs to user 1000") {
		t.Errorf("a record of somebody else: %s", got)
	}
}
