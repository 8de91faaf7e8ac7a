//go:build amd64

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/report"
)

// TestHostAsExpected: the host's own processes may be open, if the policy says
// so; one in a PID namespace of its own may not.
func TestHostAsExpected(t *testing.T) {
	contained := exec.Command("sleep", "1000")
	contained.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	own := exec.Command("sleep", "1000")
	for _, cmd := range []*exec.Cmd{contained, own} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { cmd.Process.Kill(); cmd.Wait() }()
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	const text = "version: 1\nname: host\nexpect-open: [{reason: an LSM closes it, outside-containers: true}]\n"
	if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) (report.Host, int) {
		t.Helper()
		out, status := call(append([]string{"verify", "--all", "--json"}, args...)...)
		var r report.Host
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return r, status
	}
	found := func(r report.Host, pid int) *report.Process {
		for _, s := range r.Stacks {
			for i := range s.Processes {
				if s.Processes[i].PID == pid {
					return &s.Processes[i]
				}
			}
		}
		return nil
	}
	r, status := ask("--policy", policy)
	if p := found(r, own.Process.Pid); p == nil || p.Contained || p.Expected != "an LSM closes it" {
		t.Errorf("of the host: %+v", p)
	}
	if p := found(r, contained.Process.Pid); p == nil || !p.Contained || p.Expected != "" {
		t.Errorf("in a PID namespace: %+v", p)
	}
	if status != exitNo || r.Verdict != report.Open || r.Expected == 0 || r.Policy == nil || r.Policy.Name != "host" || r.Policy.Digest == "" {
		t.Errorf("status %d, %s, %d expected, policy %+v", status, r.Verdict, r.Expected, r.Policy)
	}
	if r.Host == "" || r.Kernel == "" || r.Tool.Libseccomp == "" || !strings.HasSuffix(r.Time, "Z") {
		t.Errorf("not signed: %+v", r)
	}
	r, _ = ask("--containers")
	if found(r, own.Process.Pid) != nil || found(r, contained.Process.Pid) == nil || r.Only != "containers" {
		t.Errorf("--containers: %d processes", r.Processes)
	}
	contained.Process.Kill()
	contained.Wait()
	if r, status = ask("--policy", policy); found(r, own.Process.Pid) == nil {
		t.Error("the host's own is not there")
	}
	// Others may run containers here meanwhile.
	var others []string
	for _, s := range r.Stacks {
		for _, p := range s.Processes {
			if p.Expected == "" && s.Verdict != report.Closed {
				others = append(others, fmt.Sprintf("%d %s %+v", p.PID, p.Command, p.Place))
			}
		}
	}
	if (status == exitYes) != (len(others) == 0) || (r.Verdict == report.Closed) != (len(others) == 0) {
		t.Errorf("status %d, %s, not expected: %v", status, r.Verdict, others)
	}
}
