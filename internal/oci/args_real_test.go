package oci

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The words that command lines are made of, where the readers of runc (package
// flag, behind urfave/cli) and of crun (argp, behind getopt_long) part.
var (
	beforeCommand = [][]string{
		{}, {"--debug"}, {"--debug=false"}, {"--debug=x"}, {"--help=false"}, {"-h=0"}, {"--version=false"}, {"-v=0"},
		{"--"}, {"--", "--"}, {""}, {"-"}, {"---"}, {"--=x"}, {"--root", "--"}, {"--root=--"}, {"-root", "state"}, {"--roo", "state"},
		{"--log", "run"}, {"--systemd-cgroup=0"}, {"--rootless", "--"}, {"--log-format", "--"},
	}
	afterCommand = [][]string{
		{}, {"--help=false"}, {"--help=F"}, {"--help=true"}, {"--help="}, {"-h=0"}, {"-h=false"}, {"--h"}, {"--h=0"}, {"--hel"}, {"-help=0"},
		{"--help", "--help=false"}, {"-h", "-h=0"}, {"-?"}, {"-?=0"}, {"--help"}, {"-h"}, {"--usage"}, {"-dh"}, {"-hd"},
		{"--detach=false"}, {"-d=0"}, {"--detach=x"}, {"--no-pivot=0"}, {"--no-pivot=f", "--help=0"},
		{"--bund", "."}, {"--bundle=."}, {"-b."}, {"-b=."}, {"-b", "."}, {"-bundle", "."}, {"--bundle", "other", "--bundle", "."},
		{"--"}, {""}, {"-"}, {"---help"}, {"--=x"}, {"-=x"},
		{"--pid-file", "--", "--help"}, {"--pid-file", "--help"}, {"--pid-file=--help"}, {"--preserve-fds", "--help"},
		{"--console-socket", "--"}, {"--preserve-fds", "--"}, {"--pid-file", "--bundle=."},
	}
)

// TestAgainstRuntimes asks the runtimes themselves: of what passes without
// being hardened they start no container, and of what is hardened none but
// ours.
func TestAgainstRuntimes(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealRuntime(t, name)
			for _, started := range [][]string{{"run", "c"}, {"create", "--", "c"}} {
				if got := r.starts(t, started); got != "theirs\n" {
					t.Fatalf("control: %q started %q", started, got)
				}
			}
			if got := r.starts(t, []string{"run", "--help=false", "c"}); name == "runc" && got != "theirs\n" {
				t.Errorf("control: runc takes --help=false as help, and starts %q", got)
			}
			for _, args := range commandLines() {
				r.check(t, args)
			}
		})
	}
}

// commandLines are each form in its usual places, and some of them together.
func commandLines() (lines [][]string) {
	for _, before := range beforeCommand {
		lines = append(lines, slices.Concat(before, []string{"run", "c"}))
	}
	for _, after := range afterCommand {
		lines = append(lines,
			slices.Concat([]string{"run"}, after, []string{"c"}),
			slices.Concat([]string{"run", "c"}, after))
	}
	for _, command := range []string{"creat", "Run", "r", "ru", "run ", "help", "h", "start"} {
		lines = append(lines, []string{command, "c"}, []string{command, "run", "c"})
	}
	random := rand.New(rand.NewPCG(10, 38)) // the same lines each time
	pick := func(from [][]string) []string { return from[random.IntN(len(from))] }
	for range 40 {
		lines = append(lines, slices.Concat(pick(beforeCommand), []string{"create"}, pick(afterCommand), []string{"c"}, pick(afterCommand)))
	}
	return lines
}

// realRuntime is a runtime in the directory of a bundle that is not ours.
type realRuntime struct {
	path, dir, mark, ours string
}

func newRealRuntime(t *testing.T, name string) *realRuntime {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &realRuntime{path: path, dir: filepath.Join(dir, "theirs"), mark: filepath.Join(dir, "mark"), ours: filepath.Join(dir, "ours")}
	for _, bundle := range []string{r.dir, r.ours} {
		for _, mounted := range []string{"dev", "proc"} {
			if err := os.MkdirAll(filepath.Join(bundle, "rootfs", mounted), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		// The hook tells that the container is made, and ends it.
		config := fmt.Sprintf(`{"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/none"], "cwd": "/"},
			"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
			"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
			"hooks": {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo %s >>%s; exit 1"]}]}}`, filepath.Base(bundle), r.mark)
		if err := os.WriteFile(filepath.Join(bundle, ConfigName), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// starts tells whose container the runtime makes of a command line.
func (r *realRuntime) starts(t *testing.T, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	line := slices.Concat([]string{r.path, "--root=state"}, args)
	if filepath.Base(r.path) == "crun" { // it refuses a hybrid hierarchy
		line = slices.Concat([]string{"unshare", "--mount", "sh", "-c", `mount -t cgroup2 none /sys/fs/cgroup && exec "$@"`, "-",
			r.path, "--root=state", "--cgroup-manager=disabled"}, args)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = r.dir
	out, _ := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%q does not end: %s", args, out)
	}
	mark, _ := os.ReadFile(r.mark)
	os.Remove(r.mark)
	return string(mark)
}

func (r *realRuntime) check(t *testing.T, args []string) {
	t.Helper()
	inv, pass, err := ParseInvocation(slices.Clone(args))
	switch {
	case err != nil:
	case inv == nil:
		if got := r.starts(t, pass); got != "" {
			t.Errorf("%q passes as %q, and %s starts %q", args, pass, r.path, got)
		}
	default:
		with := inv.With(r.ours)
		if got := r.starts(t, with); strings.Contains(got, "theirs") {
			t.Errorf("%q becomes %q, and %s starts %q", args, with, r.path, got)
		}
	}
}
