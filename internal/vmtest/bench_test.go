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
	buildBench(b, dir)
	vm := Boot(b, "6.12", Options{})
	b.Log(vm.Release)
	for range b.N {
		runBench(b, vm, dir, "-broker")
	}
}

// counted are the arguments in a machine whose clock goes by instructions: one
// round tells all.
var counted = []string{"-rounds", "1", "-icount", strconv.Itoa(countedShift)}

// BenchmarkKernelHalf prints the cost of the kernel half: in instructions, and
// once in time, beside the broker.
//
//	go test -tags vm -run '^$' -bench KernelHalf -benchtime 1x -timeout 2h -v ./internal/vmtest
func BenchmarkKernelHalf(b *testing.B) {
	dir := b.TempDir()
	buildBench(b, dir)
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
				runBench(b, vm, dir, append(m.arguments, "-lsm")...)
			}
		})
	}
}

// runBench logs what the bench program prints in a machine. It runs from a file
// system that shows every change of a file: on others, as tmpfs, the broker keeps
// no digest, and hashes at each look.
func runBench(b *testing.B, vm *VM, dir string, arguments ...string) {
	b.Helper()
	const script = `set -e
modprobe -a loop ext4
truncate -s 64M /tmp/disk
mkfs.ext4 -q /tmp/disk
mkdir /mnt/bench
mount -o loop /tmp/disk /mnt/bench
cp -rT "$0" /mnt/bench
exec /mnt/bench/bench -programs /mnt/bench "$@"`
	r := vm.Command(b, Command{Args: append([]string{"sh", "-c", script, dir}, arguments...), Timeout: 30 * time.Minute})
	if r.Exit != 0 {
		b.Fatalf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	b.Logf("\n%s", r.Stdout)
}

// buildBench builds the bench program and the C programs that it runs, all of
// them statically.
func buildBench(b *testing.B, dir string) {
	b.Helper()
	build := func(c *exec.Cmd) {
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	c := exec.Command("go", "build", "-trimpath", "-tags", "netgo,osusergo", "-ldflags", "-linkmode external -extldflags -static", "-o", filepath.Join(dir, "bench"), "../../bench")
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
}
