//go:build amd64

package kerneltest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestI386 compares the answer with execve: a kernel without i386 calls runs no
// 32-bit program either.
func TestI386(t *testing.T) {
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	err := exec.Command(binary).Run()
	if runs := I386(t); runs && err != nil || !runs && !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("runs 32-bit code: %v; a 32-bit program: %v", runs, err)
	}
}

func TestRuns32(t *testing.T) {
	for _, tt := range []struct {
		end         string
		runs, known bool
	}{
		{"exit 0", true, true},
		{"kill -SEGV $$", false, true},
		{"exit 38", false, true}, // ENOSYS
		{"exit 1", false, false}, // EPERM: a filter
		{"kill -SYS $$", false, false},
		{"kill -KILL $$", false, false},
	} {
		runs, err := runs32(exec.Command("sh", "-c", "ulimit -c 0; "+tt.end).Run())
		if runs != tt.runs || (err == nil) != tt.known {
			t.Errorf("%s: %v, %v", tt.end, runs, err)
		}
	}
	if _, err := runs32(exec.Command("/nonexistent").Run()); err == nil {
		t.Error("a question that was never asked has an answer")
	}
}

// TestChrooted looks from inside a chroot: this program again, with a mount of
// the whole tree as its root, like a test in another distribution.
func TestChrooted(t *testing.T) {
	const inside = "KERNELTEST_INSIDE"
	if os.Getenv(inside) != "" {
		t.Run("user namespaces", func(t *testing.T) { NeedUserNamespaces(t); t.Fatal("not skipped") })
		t.Run("root", func(t *testing.T) { NeedOwnRoot(t); t.Fatal("not skipped") })
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root, namespaces := t.TempDir(), "--mount"
	if os.Geteuid() != 0 {
		NeedUserNamespaces(t)
		namespaces = "-Urm"
	}
	cmd := exec.Command("unshare", namespaces, "sh", "-c", `mount --rbind / "$0" && exec chroot "$0" "$@"`, root,
		self, "-test.run=^TestChrooted$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if want := "the kernel makes no user namespace for a process in a chroot"; err != nil || !bytes.Contains(out, []byte(want)) || bytes.Count(out, []byte("--- SKIP: TestChrooted/")) != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}
