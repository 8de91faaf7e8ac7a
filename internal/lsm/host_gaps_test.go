package lsm

import (
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// The program that sees pages of files before Linux 6.5 is no LSM program, so
// that a kernel with preemption skips it, whatever the attachment is.
func TestZeroCopyIsWiderWhereItsProgramIsSkipped(t *testing.T) {
	denies, silent := &plan.Plan{ZeroCopy: policy.Yes}, &plan.Plan{}
	old := needs{attachment: LSM, zeroCopy: true}
	for name, tt := range map[string]struct {
		plan  *plan.Plan
		host  Host
		needs needs
		want  []string
	}{
		"skipped":             {denies, Host{Preemption: kernel.PreemptFull}, old, []string{policy.GapZeroCopy}},
		"not known":           {denies, Host{Preemption: kernel.PreemptUnknown}, old, []string{policy.GapZeroCopy}},
		"never skipped":       {denies, Host{Preemption: kernel.PreemptVoluntary}, old, nil},
		"not said":            {silent, Host{Preemption: kernel.PreemptFull}, old, nil},
		"seen by LSM program": {denies, Host{Preemption: kernel.PreemptFull}, needs{attachment: LSM, zeroCopy: true, splices: true}, nil},
		"audit":               {denies, Host{Preemption: kernel.PreemptFull}, needs{attachment: LSM}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var wider []string
			for _, g := range hostGaps(tt.plan, tt.host, tt.needs) {
				if g.Kind == plan.Wider {
					wider = append(wider, g.Name)
				}
			}
			if !slices.Equal(wider, tt.want) {
				t.Errorf("wider: %v, want %v", wider, tt.want)
			}
		})
	}
}
