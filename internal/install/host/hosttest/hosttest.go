// Package hosttest compares file systems before and after; tests only.
package hosttest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Must ends a test that cannot go on.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Snapshot lists all that is below a directory: kind, mode and owner, and of
// files time and content.
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
			text += fmt.Sprintf(" %v\n%s", info.ModTime(), data)
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

// Without leaves out times and records, which differ from one run to the next.
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

// old is a time that no test writes at.
var old = time.Date(2020, 2, 2, 2, 2, 2, 123456789, time.UTC)

// Write makes a file, with the directories that lead to it.
func Write(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	Must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	Must(t, os.WriteFile(p, []byte(text), 0o600))
	Must(t, os.Chmod(p, mode))
	Must(t, os.Chtimes(p, old, old))
}
