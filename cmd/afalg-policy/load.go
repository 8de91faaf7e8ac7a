package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
)

// loadPlan resolves the POLICY argument. Warnings go to standard error.
func loadPlan(t *tui, name string) (*plan.Plan, error) {
	p, warnings, err := plan.Load(name, plan.ReadNamed)
	for _, w := range warnings {
		t.Notef("warning: %v", w)
	}
	return p, err
}

// onePolicy checks for the POLICY argument alone.
func onePolicy(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return usagef("name a policy: a path, or builtin:NAME")
	default:
		return usagef("one policy, not %d: %s", len(args), strings.Join(args, " "))
	}
}

// completePolicy offers the shipped policies besides files.
func completePolicy(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, name := range policies.Names() {
		names = append(names, policy.BuiltinPrefix+name)
	}
	return names, cobra.ShellCompDirectiveDefault
}
