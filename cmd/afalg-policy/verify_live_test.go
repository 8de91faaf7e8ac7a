//go:build amd64

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
)

// These tests need root: without it the kernel shows no filters.

// sleepers starts processes under filters and returns their numbers.
func sleepers(t *testing.T, f cbpf.Filter, number int) []int {
	t.Helper()
	program := filepath.Join(t.TempDir(), "oracle")
	if err := oracle.Build(program); err != nil {
		t.Fatal(err)
	}
	pids, stop, err := oracle.Sleepers(program, f, number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the sleepers' parent did not survive: %v", err)
		}
	})
	return pids
}

func compiledFor(t *testing.T, src []byte) cbpf.Program {
	t.Helper()
	conditional, err := profile.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	p, err := conditional.Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := seccomp.Compile(p, seccomp.Options{Runtime: seccomp.Runc, Native: specs.ArchX86_64})
	if err != nil {
		t.Fatal(err)
	}
	return c.Insns
}

func dockerProgram(t *testing.T) cbpf.Program {
	t.Helper()
	src, err := jsontext.Encode(profile.Docker())
	if err != nil {
		t.Fatal(err)
	}
	return compiledFor(t, src)
}

// hardenedProgram closes AF_ALG and allows everything else.
func hardenedProgram(t *testing.T) cbpf.Program {
	t.Helper()
	out, status := call("generate", "seccomp", "builtin:baseline", "--base", "none", "--format", "oci")
	if status != exitYes {
		t.Fatal(out)
	}
	return compiledFor(t, []byte(out))
}

// call runs a command line and returns its standard output.
func call(args ...string) (string, int) {
	var out, errs bytes.Buffer
	status := run(args, strings.NewReader(""), &out, &errs)
	if status > exitNo {
		return errs.String(), status
	}
	return out.String(), status
}

// TestVerifyPID asks about processes under one filter, two, and none.
func TestVerifyPID(t *testing.T) {
	docker, hardened := dockerProgram(t), hardenedProgram(t)
	tests := []struct {
		name   string
		filter cbpf.Filter
		open   []string // "ABI call"
	}{
		{"hardened", cbpf.Filter{hardened}, nil},
		{"docker", cbpf.Filter{docker}, []string{"x86-64 socketpair", "i386 socketcall", "i386 socketpair", "x32 socketpair"}},
		{"docker under hardened", cbpf.Filter{hardened, docker}, nil},
		{"hardened under docker", cbpf.Filter{docker, hardened}, nil},
		{"docker, twice", cbpf.Filter{docker, docker}, []string{"x86-64 socketpair", "i386 socketcall", "i386 socketpair", "x32 socketpair"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pid := sleepers(t, tt.filter, 1)[0]
			out, status := call("verify", "--json", "--pid", fmt.Sprint(pid))
			var r report.Filters
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var open []string
			for _, a := range r.Filters[0].Answers {
				if name := a.ABI + " " + a.Call; a.Verdict != "closed" && !slices.Contains(open, name) {
					open = append(open, name)
				}
			}
			slices.Sort(open)
			slices.Sort(tt.open)
			if d := cmp.Diff(tt.open, open); d != "" {
				t.Error(d)
			}
			if want := map[bool]int{true: exitYes, false: exitNo}[len(tt.open) == 0]; status != want || (r.Verdict == report.Closed) != (want == exitYes) {
				t.Errorf("status %d, %s", status, r.Verdict)
			}
			if f := r.Filters[0]; f.Kind != "process" || f.Machine != "amd64" || f.Programs != len(tt.filter) || len(r.Filters) != 1 {
				t.Errorf("filter %+v", f)
			}
			if want := fmt.Sprintf("process %d (oracle)", pid); r.Filters[0].Name != want {
				t.Errorf("name %q, want %q", r.Filters[0].Name, want)
			}
		})
	}
}

func TestVerifyLiveErrors(t *testing.T) {
	tests := []struct {
		args   []string
		status int
		text   string
	}{
		{[]string{"--pid", "4194305"}, exitUsage, "afalg-policy: read the filters of process 4194305: there is no such process any more\n"},
		{[]string{"--pid", "2"}, exitUsage, "afalg-policy: read the filters of process 2: it is a kernel thread, which makes no system calls\n"},
		{[]string{"--container", "a/b"}, exitUsage, "afalg-policy: container \"a/b\": not a container's name\n"},
		{[]string{"--container", "lxc:a"}, exitUsage, "afalg-policy: container lxc:a: no such engine; there are docker, podman, runc, crun\n"},
		{[]string{"--container", "runc:a"}, exitHost, "afalg-policy: container a: there is no runc here to ask; name its process instead\n"},
	}
	t.Setenv("PATH", t.TempDir())
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			text, status := call(append([]string{"verify"}, tt.args...)...)
			if text != tt.text || status != tt.status {
				t.Errorf("status %d, want %d\ngot  %swant %s", status, tt.status, text, tt.text)
			}
		})
	}
	if text, status := call("verify", "--pid", "1", "--all"); status != exitUsage || !strings.Contains(text, "none of the others can be") {
		t.Errorf("status %d: %s", status, text)
	}
}

// thousand is how many processes a host has.
const thousand = 1000

// TestVerifyThousand asks a host with a thousand processes under three stacks
// of filters.
func TestVerifyThousand(t *testing.T) {
	docker, hardened := dockerProgram(t), hardenedProgram(t)
	under := map[string][]int{
		"docker":   sleepers(t, cbpf.Filter{docker}, thousand-400),
		"hardened": sleepers(t, cbpf.Filter{hardened}, 300),
		"both":     sleepers(t, cbpf.Filter{docker, hardened}, 100),
	}
	start := time.Now()
	out, status := call("verify", "--all", "--json")
	took := time.Since(start)
	if status != exitNo {
		t.Fatalf("status %d: %s", status, out)
	}
	var r report.Host
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d processes, %d threads, %d distinct stacks: %v", r.Processes, r.Threads, len(r.Stacks), took)
	for name, want := range map[string]string{"docker": "open", "hardened": "closed", "both": "closed"} {
		stack, ok := stackOf(r, under[name][0])
		if !ok {
			t.Errorf("%s: its processes were not seen", name)
			continue
		}
		var pids []int
		for _, p := range stack.Processes {
			pids = append(pids, p.PID)
		}
		missing := slices.DeleteFunc(slices.Clone(under[name]), func(pid int) bool { return slices.Contains(pids, pid) })
		if stack.Verdict != want || len(missing) > 0 {
			t.Errorf("%s: %s, want %s; missing %v", name, stack.Verdict, want, missing)
		}
	}
	counts := map[string]int{}
	for _, v := range r.Verdicts {
		counts[v.Verdict] = v.Processes
	}
	if counts["closed"] < 400 || counts["open"] < 600 || counts["closed"]+counts["open"]+counts["undecided"]+counts["listener"] != r.Processes {
		t.Errorf("verdicts %v of %d processes", counts, r.Processes)
	}
	text, status := call("verify", "--all")
	if status != exitNo || !strings.Contains(text, "\nstack\tclosed\t") || !strings.HasPrefix(text, "verdict\topen\t") {
		t.Errorf("status %d\n%s", status, text)
	}
}

func stackOf(r report.Host, pid int) (report.Stack, bool) {
	for _, s := range r.Stacks {
		if slices.ContainsFunc(s.Processes, func(p report.Process) bool { return p.PID == pid }) {
			return s, true
		}
	}
	return report.Stack{}, false
}
