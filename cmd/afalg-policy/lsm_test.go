package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	jsonschema "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// kernelHalfReports are those of a kernel that has a policy loaded, which this
// one may not: with every field, and as they are without any.
func kernelHalfReports(t *testing.T) (values []map[string]any) {
	t.Helper()
	p := &plan.Plan{Name: "p", Digest: "sha256:0"}
	socket := lsm.Socket{PID: 7, FD: 3, Operation: true, Shown: "/usr/bin/a"}
	s := &lsm.Status{
		State: &lsm.State{
			Policy: "/p.yaml", Digest: "sha256:0", Tool: "t", Attachment: lsm.FmodRet, Loaded: time.Now(), Accepted: []string{"zero-copy"},
			Gaps: []plan.Gap{plan.Stricter.Gap("a", nil, "b: c")}, Containers: []lsm.Grantee{{ID: "c", Path: "/c", Cgroup: 1, Rules: []string{"a"}}},
		},
		Host:   lsm.Host{Release: "6.1", LSMs: []string{"yama"}, Preemption: "voluntary"},
		Faults: []string{"f"}, Counters: map[string]uint64{"allowed": 1}, Misses: 1, Old: []lsm.Socket{socket},
	}
	now := time.Now()
	uses, err := report.NewUses(s, []lsm.Use{
		{Call: "socket", Shown: "/usr/bin/a", First: now, Last: now, Count: 1},
		{Call: "bind", Algorithm: afalg.Algorithm{Type: "hash", Name: "sha1"}, Binary: "/usr/bin/a", SHA256: "0", Shown: "/usr/bin/a",
			UID: 1, Unit: "a.service", Contained: true, Allowed: true, Count: 2, First: now, Last: now},
	})
	must(t, err)
	for _, r := range []any{
		report.NewKernelHalf("lsm status", s), report.NewKernelHalf("lsm status", &lsm.Status{}),
		report.NewLoad("lsm load", p, s, []lsm.Socket{socket}), report.NewLoad("lsm refresh", p, s, nil),
		report.NewLoadRefused("lsm load", "/p.yaml", p, []plan.Gap{plan.Wider.Gap("a", nil, "b")}, errNo), uses,
		report.NewKernelGaps(p, nil, errNo, errNo),
	} {
		text, err := json.Marshal(r)
		must(t, err)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		must(t, err)
		values = append(values, value.(map[string]any))
	}
	return values
}

// The kernel half is about the host: in a container, and for anybody but root, it
// is status 3, and never "nothing is loaded".
func TestKernelHalfTakesTheHost(t *testing.T) {
	program, err := exec.LookPath("afalg-policy")
	must(t, err)
	text, err := os.ReadFile(program)
	must(t, err)
	open, err := os.CreateTemp("", "afalg-policy") // where everybody may run it
	must(t, err)
	t.Cleanup(func() { os.Remove(open.Name()) })
	_, err = open.Write(text)
	must(t, err)
	must(t, open.Chmod(0o755))
	must(t, open.Close())
	for name, in := range map[string]*syscall.SysProcAttr{
		"container": {Cloneflags: syscall.CLONE_NEWUSER},
		"nobody":    {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "container" {
				kerneltest.NeedUserNamespaces(t)
			} else if os.Geteuid() != 0 {
				in = nil // as whoever runs the test
			}
			for _, line := range []string{
				"lsm load builtin:baseline", "lsm load builtin:baseline --json", "lsm status", "lsm status --json",
				"lsm refresh", "lsm refresh --quiet", "lsm learn", "lsm learn --json", "lsm unload",
			} {
				var out, notes bytes.Buffer
				cmd := exec.Command(open.Name(), strings.Fields(line)...)
				cmd.Args[0] = "afalg-policy"
				cmd.SysProcAttr, cmd.Stdout, cmd.Stderr, cmd.Dir = in, &out, &notes, "/"
				err := cmd.Run()
				if err == nil || statusOf(err) != "3" || out.Len() > 0 || !strings.HasPrefix(notes.String(), "afalg-policy: the kernel half ") {
					t.Errorf("%s: %v, %q, %q", line, err, &out, &notes)
				}
			}
			cmd := exec.Command(open.Name(), "explain", "builtin:fips", "--lsm")
			cmd.Args[0], cmd.SysProcAttr, cmd.Dir = "afalg-policy", in, "/"
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "not looked up: users, executables, and what this kernel has: the kernel half ") ||
				!strings.HasSuffix(string(out), "verdict: yes: the kernel half can express all of policy fips\n") {
				t.Errorf("explain --lsm: %v\n%s", err, out)
			}
		})
	}
}
