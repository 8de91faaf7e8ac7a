package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// outcome is what a command leaves behind.
type outcome struct {
	stdout, stderr string
	status         int
}

// runTarget runs a target that is not in the tree, as run does.
func runTarget(target target, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	t := newTUI(&stdout, &stderr)
	cmd := newTarget(t, target)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetErr(&stderr)
	err := cmd.Execute()
	t.out.Flush()
	status := t.report(cmd, err)
	return outcome{stdout.String(), stderr.String(), status}
}

// fake renders always the same.
func fake(files []gen.File, gaps []plan.Gap, err error) target {
	return target{name: "fake", flags: func(*cobra.Command) generator {
		return func(*plan.Plan, gen.Common) ([]gen.File, []plan.Gap, error) { return files, gaps, err }
	}}
}

var (
	one     = []gen.File{{Path: "x", Data: []byte("data\n")}}
	two     = []gen.File{{Path: "x", Data: []byte("1")}, {Path: "d/y", Data: []byte("2")}}
	someGap = plan.Gap{Kind: plan.Stricter, Name: "r", Routes: []afalg.Route{afalg.RouteSocket, afalg.RouteIOUring}, Text: "denied."}
	wide    = plan.Gap{Kind: plan.Wider, Name: "w", Text: "open."}
)

func TestGenerateShared(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	directory := func(t target) target { t.directory = true; return t }
	tests := []struct {
		name   string
		target target
		args   []string
		want   outcome
		files  map[string]string
	}{
		{"to stdout", fake(one, nil, nil), []string{"builtin:fips"}, outcome{"data\n", "", 0}, nil},
		{"gaps beside it", fake(one, []plan.Gap{someGap, wide}, nil), []string{"builtin:fips"},
			outcome{"data\n", "gap: stricter: r [socket, io_uring]: denied.\ngap: wider: w: open.\n", 0}, nil},
		{"wider than the policy", fake(one, []plan.Gap{wide}, &plan.UnacceptedError{Gaps: []plan.Gap{wide}}), []string{"builtin:fips", "-o", at("refused")},
			outcome{"", "afalg-policy: the output would allow more than the policy:\n  w: open. (accept with --accept w)\n", 1}, nil},
		{"an error of the target", fake(one, nil, errors.New("no")), []string{"builtin:fips", "-o", at("refused")},
			outcome{"", "afalg-policy: no\n", 1}, nil},
		{"an error of the host", fake(one, nil, hosterr.Errorf("no libseccomp")), []string{"builtin:fips"},
			outcome{"", "afalg-policy: no libseccomp\n", 3}, nil},
		{"an invalid number of files", fake(two, nil, nil), []string{"builtin:fips"},
			outcome{"", "afalg-policy: the target made 2 files instead of one\n", 1}, nil},
		{"a directory where a file is meant", fake(one, nil, nil), []string{"builtin:fips", "-o", at("new") + "/"},
			outcome{"", "afalg-policy: output " + at("new") + "/: a directory, where a file is meant\nRun \"fake --help\" for help.\n", 2}, nil},
		{"to a file", fake(one, nil, nil), []string{"builtin:fips", "-o", at("out")}, outcome{}, map[string]string{"out": "data\n"}},
		{"to a directory", directory(fake(two, nil, nil)), []string{"builtin:fips", "-o", dir}, outcome{},
			map[string]string{"out": "data\n", "x": "1", "d": "d---------", "d/y": "2"}},
	}
	files := map[string]string{}
	for _, tt := range tests {
		got := runTarget(tt.target, tt.args...)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if tt.files != nil {
			files = tt.files
		}
		if diff := cmp.Diff(files, tree(t, dir)); diff != "" {
			t.Errorf("%s: files: %s", tt.name, diff)
		}
	}
}

func TestGenerateCommon(t *testing.T) {
	var got gen.Common
	target := target{name: "fake", flags: func(*cobra.Command) generator {
		return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
			got = c
			return one, nil, nil
		}
	}}
	o := runTarget(target, "builtin:desktop", "--grant", "udisksd", "--grant", "iwd", "--grant", "iwd", "--accept", "b,c", "--accept", "a")
	want := gen.Common{Tool: "afalg-policy devel", Grants: []string{"iwd", "udisksd"}, Accept: []string{"a", "b,c"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(gen.Common{}, "Tell")); diff != "" || o.status != 0 || got.Tell == nil {
		t.Errorf("%s\n%+v", diff, o)
	}
}

func TestExitStatus(t *testing.T) {
	wrapped := func(err error) error { return errors.Join(errors.New("x"), err) }
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"success":             {nil, 0},
		"a no that was shown": {errNo, 1},
		"nobody classified":   {errors.New("x"), 1},
		"usage":               {wrapped(usagef("x")), 2},
		"policy not readable": {wrapped(&plan.ReadError{}), 2},
		"host":                {wrapped(hosterr.Errorf("x")), 3},
		"output taken":        {written(&output.KindError{}), 2},
		"output not written":  {written(errors.New("x")), 3},
	} {
		if got := exitStatus(tt.err); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// Without --show the manager of this host is asked; where none runs, nothing is
// written, rather than a list that replaces shorter ones.
func TestGenerateSystemdAsks(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	status := run([]string{"generate", "systemd", "builtin:baseline", "-o", out}, nil, &stdout, &stderr)
	_, booted := os.Stat("/run/systemd/system")
	_, written := os.Stat(filepath.Join(out, "service.d", "zz-afalg-policy.conf"))
	if booted == nil {
		if status != exitYes || written != nil {
			t.Errorf("a manager runs: status %d, %v\n%s", status, written, stderr.String())
		}
		return
	}
	const want = "afalg-policy: no systemd runs here that could say what units restrict themselves: tell by --show FILE\n"
	if status != exitHost || stderr.String() != want || written == nil {
		t.Errorf("status %d, written %t, %q, want %q", status, written == nil, stderr.String(), want)
	}
}
