//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkSession prints the cost of the broker where AF_ALG is real: one run
// of the bench program, whose figures are its own.
//
//	go test -tags vm -run '^$' -bench Session -benchtime 1x -v ./internal/vmtest
func BenchmarkSession(b *testing.B) {
	dir := b.TempDir()
	bench := buildBench(b, dir)
	vm := Boot(b, "6.12", Options{})
	b.Log(vm.Release)
	for range b.N {
		r := vm.Command(b, Command{Args: []string{bench, "-broker", "-programs", dir}, Timeout: 10 * time.Minute})
		if r.Exit != 0 {
			b.Fatalf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
		}
		b.Logf("\n%s", r.Stdout)
	}
}

// buildBench builds the bench program and the C programs that it runs, all of
// them statically.
func buildBench(b *testing.B, dir string) string {
	b.Helper()
	build := func(c *exec.Cmd) {
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	bench := filepath.Join(dir, "bench")
	c := exec.Command("go", "build", "-trimpath", "-tags", "netgo,osusergo", "-ldflags", "-linkmode external -extldflags -static", "-o", bench, "../../bench")
	c.Env = append(os.Environ(), "CGO_ENABLED=1")
	build(c)
	for _, name := range []string{"calls", "client", "data", "floor", "workload"} {
		build(exec.Command("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, name), "../../bench/floor/"+name+".c"))
	}
	return bench
}
