package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/spf13/cobra"
)

func newCheck(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check POLICY",
		Short: "Validate a policy with everything that it includes",
		Long: `Check reads a policy and all that it includes, and reports every error at once,
each as "file:line:col: message". Warnings do not make a policy invalid.

With -o json it prints the resolved plan: includes merged, defaults filled in,
everything sorted. Its digest depends on what the policy means, and not on
comments, order, file names or includes.

Exit status 1 means that the policy is invalid, 2 that it cannot be read.`,
		Example: `  afalg-policy check policy.yaml
  afalg-policy check builtin:desktop -o json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		if wantJSON() {
			return t.json(p)
		}
		showPlan(t, p)
		return nil
	}
	return cmd
}

// showPlan writes a summary that a reviewer can read in one look.
func showPlan(t *tui, p *plan.Plan) {
	t.printf("policy %s is valid: %s", p.Name, count(len(p.Rules), "rule"))
	t.printf("digest %s", p.Digest)
	t.printf("denied sockets get %s, denied binds %s", p.SocketErrno.Name, p.BindErrno.Name)
	if len(p.Families) > 0 {
		var names []string
		for _, f := range p.Families {
			names = append(names, f.Name)
		}
		t.printf("closed besides AF_ALG: %s", strings.Join(names, ", "))
	}
	for _, r := range p.Rules {
		for _, a := range r.Algorithms {
			if a.Name == "*" {
				t.printf("rule %s opens every %s algorithm (%s)", r.Name, a.Type, a.Pos)
			}
		}
	}
	showContainers(t, p)
}

// showContainers says nothing for a policy that says nothing of containers.
func showContainers(t *tui, p *plan.Plan) {
	switch {
	case p.Unconfined == plan.Harden:
		t.printf("containers without a seccomp profile get one that closes AF_ALG")
	case p.Unconfined == plan.Allow:
		t.printf("containers without a seccomp profile may use every algorithm")
	case len(p.Grants) > 0:
		t.printf("containers without a seccomp profile are refused")
	}
	for _, g := range p.Grants {
		t.printf("granted to containers: %s (%s)", grantText(g), g.Pos)
	}
}

// grantText says it in the words of the policy file.
func grantText(g policy.Grant) string {
	var rules, conditions []string
	for _, r := range g.Rules {
		rules = append(rules, r.Name)
	}
	for _, c := range []struct {
		key    string
		values []string
	}{
		{"platforms", g.Platforms},
		{"names", g.Names},
		{"images", g.Images},
		{"namespaces", g.Namespaces},
		{"pods", g.Pods},
		{"labels", pairTexts(g.Labels)},
		{"annotations", pairTexts(g.Annotations)},
	} {
		if len(c.values) > 0 {
			conditions = append(conditions, c.key+" "+strings.Join(c.values, ", "))
		}
	}
	return strings.Join(rules, ", ") + " for " + strings.Join(conditions, "; ")
}

func pairTexts(m map[string]string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s=%q", key, m[key]))
	}
	return list
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
