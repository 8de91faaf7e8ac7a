package report

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

var loaded = time.Date(2026, time.November, 29, 18, 0, 0, 0, time.UTC)

func statusOf(audit bool, faults ...string) *lsm.Status {
	return &lsm.Status{
		State: &lsm.State{
			Policy: "/etc/p.yaml", Digest: "sha256:0", Tool: "afalg-policy 1", Audit: audit, Attachment: lsm.FmodRet, Loaded: loaded,
			Gaps: []plan.Gap{plan.Stricter.Gap("iwd", nil, "/usr/libexec/iwd is not on this host: install it")}, Binaries: []string{"/usr/bin/a"},
			Containers: []lsm.Grantee{{ID: "c"}},
		},
		Host:   lsm.Host{LSMs: []string{"lockdown", "yama"}, Preemption: kernel.PreemptVoluntary},
		Faults: faults, Counters: map[string]uint64{"denied": 2, "allowed": 10},
		Old: []lsm.Socket{{PID: 7, FD: 3, Operation: true, Shown: "/usr/bin/a"}, {PID: 8, FD: 4}},
	}
}

func TestKernelHalfText(t *testing.T) {
	const page = `policy	/etc/p.yaml (sha256:0)
since	2026-11-29T18:00:00Z, by afalg-policy 1
attachment	fmod_ret: bpf is not among the active LSMs (lockdown,yama), and the kernel's preemption is voluntary
containers	1
missed	0
allowed	10
denied	2
socket	7	3	operation: it works on	/usr/bin/a
socket	8	4	parent: refused at bind and accept	-
`
	const gap = "gap: stricter: iwd: /usr/libexec/iwd is not on this host: install it\n"
	p := &plan.Plan{Rules: []policy.Rule{{Binaries: []policy.Binary{{Path: "/usr/libexec/iwd"}, {Path: "/usr/bin/a"}}}}}
	ended := []lsm.Socket{{PID: 9, FD: 3, Operation: true, Shown: "/usr/bin/b"}}
	for name, tt := range map[string]struct {
		report *KernelHalf
		want   string
	}{
		"enforced": {NewKernelHalf("lsm status", statusOf(false)), "mode\tenforce\n" + page + gap +
			"verdict: yes: the policy decides for every process of this host\n"},
		"audit": {NewKernelHalf("lsm status", statusOf(true)), "mode\taudit\n" + page + gap +
			"verdict: no: the policy is loaded for an audit: it denies nothing, and records what it would deny\n"},
		"fault": {NewKernelHalf("lsm status", statusOf(false, "a pin is gone")), "mode\tenforce\n" + page + "fault: a pin is gone\n" + gap +
			"verdict: no: 1 fault\n"},
		"nothing": {NewKernelHalf("lsm status", &lsm.Status{}), "verdict: no: no policy is loaded in the kernel\n"},
		"left over": {NewKernelHalf("lsm status", &lsm.Status{Faults: []string{"programs are pinned"}}), "fault: programs are pinned\n" +
			"verdict: no: 1 fault\n"},
		"loaded for an audit": {NewLoad("lsm load", p, statusOf(true), nil), "mode\taudit\n" + page + gap +
			"verdict: yes: the policy is loaded for an audit: it denies nothing, and records what it would deny\n"},
		"ended": {NewLoad("lsm load", p, statusOf(false), ended), "mode\tenforce\n" + page + "ended\t9\t3\toperation: its holder was ended\t/usr/bin/b\n" + gap +
			"verdict: yes: the policy decides for every process of this host\n"},
		"loaded with a fault": {NewLoad("lsm load", p, statusOf(false, "a pin is gone"), nil), "mode\tenforce\n" + page + "fault: a pin is gone\n" + gap +
			"verdict: no: 1 fault\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, textOf(tt.report)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			text, err := json.Marshal(tt.report)
			if err != nil {
				t.Fatal(err)
			}
			var back KernelHalf
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(textOf(tt.report), textOf(&back)); diff != "" {
				t.Errorf("-made +read back:\n%s", diff)
			}
		})
	}
	if got := NewLoad("lsm load", p, statusOf(false), nil).Unresolved; !cmp.Equal(got, []string{"/usr/libexec/iwd"}) {
		t.Errorf("unresolved: %v", got)
	}
}

func TestKernelGapsText(t *testing.T) {
	p := &plan.Plan{Name: "p"}
	gaps := []plan.Gap{plan.Stricter.Gap("a", nil, "b"), plan.Wider.Gap("zero-copy", nil, "c")}
	for name, tt := range map[string]struct {
		report *KernelGaps
		want   string
	}{
		"all":     {NewKernelGaps(p, nil, nil, nil), "verdict: yes: the kernel half can express all of policy p\n"},
		"unasked": {NewKernelGaps(p, nil, errors.New("no root"), nil), "not looked up: users, executables, and what this kernel has: no root\nverdict: yes: the kernel half can express all of policy p\n"},
		"gaps":    {NewKernelGaps(p, gaps, nil, nil), "gap: stricter: a: b\ngap: wider: zero-copy: c\nverdict: yes: policy p can be loaded, with 2 gaps and --accept zero-copy\n"},
		"no":      {NewKernelGaps(p, nil, nil, errors.New("too many rules")), "verdict: no: too many rules\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, textOf(tt.report)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
