// Package hosttest compares the file systems of a test before and after.
package hosttest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Must ends a test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Tree lists everything below a directory: its kind, and the content of a file.
func Tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		found[name] = d.Type().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			found[name] = string(data)
			return err
		}
		return nil
	})
	Must(t, err)
	return found
}

// Snapshot lists everything below a directory: kind, mode and owner, and for
// files time, extended attributes and content.
func Snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	Must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += fmt.Sprintf("%s %v\n%s", xattrs(t, p), info.ModTime(), data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " " + target
		}
		name, err := filepath.Rel(dir, p)
		found[name] = text
		return err
	}))
	return found
}

// xattrs returns the extended attributes of a file, sorted.
func xattrs(t *testing.T, p string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, buf)
	if err == unix.ENOTSUP {
		return ""
	}
	Must(t, err)
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	text := ""
	for _, name := range names {
		n, err := unix.Lgetxattr(p, name, buf)
		Must(t, err)
		text += fmt.Sprintf(",%s=%x", name, buf[:n])
	}
	return text
}

// Without removes times and records, which differ from one run to the next.
func Without(tree map[string]string) map[string]string {
	plain := map[string]string{}
	for name, text := range tree {
		head, body, isFile := strings.Cut(text, "\n")
		if isFile {
			text = strings.Join(strings.Fields(head)[:2], " ") + "\n" + body
		}
		if !strings.HasPrefix(name, "var/lib/afalg-policy/installed/") {
			plain[name] = text
		}
	}
	return plain
}

// Equal compares two snapshots.
func Equal(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// old is a time at which no test writes.
var old = time.Date(2020, 2, 2, 2, 2, 2, 123456789, time.UTC)

// Write makes a file and its parent directories.
func Write(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	Must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	Must(t, os.WriteFile(p, []byte(text), 0o600))
	Must(t, os.Chmod(p, mode))
	Must(t, os.Chtimes(p, old, old))
}

// SmallDisk mounts a file system of the size, such as "64k", for the test.
func SmallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=755"); errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small disk needs CAP_SYS_ADMIN")
	} else {
		Must(t, err)
	}
	t.Cleanup(func() { Must(t, unix.Unmount(dir, 0)) })
	return dir
}
