//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// counted are the arguments in a machine whose clock goes by instructions: one
// round tells all.
var counted = []string{"-rounds", "1", "-icount", strconv.Itoa(countedShift)}

// BenchmarkKernelHalf prints the cost of the kernel half: in instructions, and
// once in time, beside the broker.
//
//	go test -tags vm -run '^$' -bench KernelHalf -benchtime 1x -timeout 1h -v ./internal/vmtest
func BenchmarkKernelHalf(b *testing.B) {
	dir := b.TempDir()
	bench := buildBench(b, dir)
	began := time.Now()
	if err := exec.Command(filepath.Join(dir, "count"), "exit").Run(); err != nil {
		b.Fatal(err)
	}
	b.Logf("on this host, to start a program and wait for its end, the yardstick: %v", time.Since(began))
	const noBPF = "lsm=lockdown,yama,apparmor"
	for _, m := range []struct {
		name, kernel string
		options      Options
		arguments    []string
	}{
		{"6.12, lsm", "6.12", Options{Counted: true}, counted},
		{"6.12, fmod_ret", "6.12", Options{Counted: true, Append: noBPF}, counted},
		{"6.1, lsm", "6.1", Options{Counted: true}, counted},
		{"6.1, fmod_ret", "6.1", Options{Counted: true, Append: noBPF}, counted},
		{"6.12, lsm, and the broker", "6.12", Options{}, []string{"-broker", "-rounds", "5"}},
	} {
		b.Run(m.name, func(b *testing.B) {
			vm := Boot(b, m.kernel, m.options)
			for range b.N {
				r := vm.Command(b, Command{Args: append([]string{bench, "-lsm", "-programs", dir}, m.arguments...), Timeout: 30 * time.Minute})
				if r.Exit != 0 {
					b.Fatalf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
				}
				b.Logf("\n%s", r.Stdout)
			}
		})
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
	sources, err := filepath.Glob("../../bench/floor/*.c")
	if err != nil {
		b.Fatal(err)
	}
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		build(exec.Command("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, name), source))
	}
	return bench
}
