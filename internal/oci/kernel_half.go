package oci

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// inForce refuses what the policy leaves to the kernel half, unless that is in
// force on this host.
func (o Options) inForce(what string) error {
	const text = "the policy leaves %s to the kernel half, and that is not in force here (see lsm status)"
	if o.KernelHalf == nil {
		return refuse(text, what)
	}
	if err := o.KernelHalf(); err != nil {
		return refuse(text+": %v", what, err)
	}
	return nil
}

// leave has the kernel half decide about a container's grants: its profile keeps
// AF_ALG open.
func (o Options) leave(out *Outcome) error {
	out.Relies = true
	if !slices.Contains(o.Accepted, policy.GapDecidedByLSM) {
		return refuse("a grant of the policy leaves this container to the kernel half (decided-by: lsm), and that gap was not taken on for the containers of this host: install again with --accept %s", policy.GapDecidedByLSM)
	}
	return o.inForce("the rules of this container (decided-by: lsm)")
}

// letThrough refuses what runs without a filter where that is left to the kernel
// half, and nobody does it.
func (o Options) letThrough() error {
	if o.Plan.Unconfined != plan.LSM {
		return nil
	}
	return o.inForce("unconfined containers")
}

// denyZeroCopy refuses a container that may use algorithms where the policy denies
// zero-copy and nobody does. The engine takes that gap on, so that this is asked
// for each container.
func (o Options) denyZeroCopy(grants []string) error {
	if len(o.Plan.ZeroCopyGaps(len(o.Plan.WithAlgorithms(grants)) > 0)) == 0 {
		return nil
	}
	return o.inForce("the denial of zero-copy (deny: zero-copy: true)")
}
