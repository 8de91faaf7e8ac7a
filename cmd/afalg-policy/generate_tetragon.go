package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func tetragonTarget() target {
	return target{
		name:  "tetragon",
		short: "Write a TracingPolicy for clusters that run Tetragon",
		long: `Tetragon writes a TracingPolicy (cilium.io/v1alpha1), by which the agent of
Tetragon decides about AF_ALG in every process of a node: executable, effective
user, capabilities and algorithm. It cannot ask for a unit, a digest or a user
by name. A rule with such a condition is left out, unless --grant names it; it
then holds without the condition.

On a kernel that preempts itself its programs may be skipped, so every output
needs --accept preemption. Rules hold outside containers alone.`,
		example: `  afalg-policy generate tetragon builtin:fips --accept preemption -o afalg-policy.yaml
  afalg-policy generate tetragon builtin:iwd --grant iwd --accept iwd --accept preemption`,
		flags: tetragonFlags,
	}
}

func tetragonFlags(cmd *cobra.Command) generator {
	name := cmd.Flags().String("name", "", "`NAME` of the TracingPolicy; "+gen.DefaultTracingPolicy+" without it")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		return gen.Tetragon(p, gen.TetragonOptions{Common: c, Policy: *name})
	}
}
