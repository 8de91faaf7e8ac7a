// Package selinuxtest runs SELinux's own tools, of a release that knows deny rules,
// from the cache that scripts/install fills. It is for tests only.
package selinuxtest

import (
	"compress/bzip2"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The tools of that release, below its root.
const (
	secilc   = "usr/bin/secilc"
	Semodule = "usr/sbin/semodule"
	pp       = "usr/libexec/selinux/hll/pp"
)

// kernelVersion is that of the policies that all kernels of the tests load.
const kernelVersion = "33"

func root(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "afalg-policy", "selinux", "debian-13")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("%v: run scripts/install test", err)
	}
	return dir
}

// Command is a tool with the C library that it was built against.
func Command(t testing.TB, tool string, args ...string) *exec.Cmd {
	t.Helper()
	dir := root(t)
	loader := only(t, filepath.Join(dir, "usr/lib*/ld-linux-*.so.*"))
	libraries := only(t, filepath.Join(dir, "usr/lib/*-linux-gnu"))
	return exec.Command(loader, append([]string{"--library-path", libraries, filepath.Join(dir, tool)}, args...)...)
}

func only(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// Compile compiles files in CIL to a policy, neverallow rules checked, and
// returns it. The error has what the compiler said.
func Compile(t testing.TB, files ...string) ([]byte, error) {
	t.Helper()
	return compile(t, func(args ...string) *exec.Cmd { return Command(t, secilc, args...) }, files)
}

// CompileOlder is Compile by the host's own compiler. That of Debian 12 knows no
// deny rules.
func CompileOlder(t testing.TB, files ...string) ([]byte, error) {
	t.Helper()
	return compile(t, func(args ...string) *exec.Cmd { return exec.Command("secilc", args...) }, files)
}

func compile(t testing.TB, compiler func(args ...string) *exec.Cmd, files []string) ([]byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "policy")
	args := append([]string{"-m", "-c", kernelVersion, "-o", out, "-f", os.DevNull}, files...)
	if said, err := compiler(args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	policy, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return policy, nil
}

// Write writes a text in CIL to a file of a name, and returns its path.
func Write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// modules are those of Debian's policy that have the domains of the tests.
var modules = []string{"base", "bluetooth", "networkmanager", "unconfined"}

// noUse are the lines of Debian's policy about files and logins. Some name what
// modules define that are not among ours.
var noUse = regexp.MustCompile(`(?m)^ *\((filecon|selinuxuser) .*\n`)

// Debian converts modules of Debian's policy to CIL, and returns their paths.
func Debian(t testing.TB) []string {
	t.Helper()
	var paths []string
	for _, module := range modules {
		packed, err := os.Open(filepath.Join(root(t), "usr/share/selinux/default", module+".pp.bz2"))
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close()
		convert := Command(t, pp)
		convert.Stdin = bzip2.NewReader(packed)
		text, err := convert.Output()
		if err != nil {
			t.Fatalf("convert %s: %v", module, err)
		}
		paths = append(paths, Write(t, module+".cil", string(noUse.ReplaceAll(text, nil))))
	}
	return paths
}
