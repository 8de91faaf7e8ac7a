package gen

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// DefaultAgent is the socket of the agent on a node.
const DefaultAgent = "/run/afalg-policy/agent.sock"

// KubernetesProfiles are the files below kube.SeccompRoot on each node: one for
// containers that hold no rule, and one for each set of rules that a grant of the
// policy gives to containers of Kubernetes. A file with rules that allow algorithms
// has the agent as its listener.
//
// They are hardened from o.Base, Docker's default profile without one, and resolved
// for o.Host; o.Broker is the agent, DefaultAgent without one. A rule in o.Grants
// holds without the conditions of its grants that admission cannot ask for.
//
// A file is no grant to whoever may name it: admission has to tie each to those who
// hold its rules, as the output of Kubernetes does.
func KubernetesProfiles(p *plan.Plan, o SeccompOptions) ([]File, []plan.Gap, error) {
	_, sets, gaps, err := kubernetesHeld(p, o.Grants)
	if err != nil {
		return nil, gaps, err
	}
	files, more, err := kubernetesProfiles(p, sets, o)
	gaps = distinctGaps(append(gaps, more...))
	if err != nil {
		return nil, gaps, err
	}
	if err := o.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	return files, gaps, nil
}

// kubernetesProfiles makes the files. Gaps that nobody accepted are left to the
// caller, who has all of them.
func kubernetesProfiles(p *plan.Plan, sets []kubernetesSet, o SeccompOptions) (files []File, gaps []plan.Gap, err error) {
	if o.Base == nil {
		o.Base = profile.Docker()
	}
	if o.Broker == "" {
		o.Broker = DefaultAgent
	}
	if o.Host.Arch == "" {
		o.Host.Arch = specs.ArchX86_64
	}
	o.Format = FormatOCI
	for _, set := range append([]kubernetesSet{{}}, sets...) {
		made, its, err := Seccomp(p, o.forSet(p, set))
		gaps = append(gaps, gapsOfSet(p, set, its)...)
		if open, is := errors.AsType[*plan.UnacceptedError](err); is {
			gaps = append(gaps, open.Gaps...)
			continue
		}
		if err != nil {
			return nil, gaps, fmt.Errorf("profile %s: %w", set.file(), err)
		}
		files = append(files, File{Path: set.file(), Data: made[0].Data})
	}
	if slices.ContainsFunc(sets, func(s kubernetesSet) bool { return s.left }) {
		gaps = append(gaps, p.KernelGaps()...)
	}
	for _, r := range p.Rules {
		if !slices.ContainsFunc(sets, func(s kubernetesSet) bool { return slices.Contains(s.rules, r.Name) }) {
			gaps = append(gaps, plan.Stricter.Gap(r.Name, nil, "no container holds the rule; a grant by namespaces, pods or names gives it to some"))
		}
	}
	return files, gaps, nil
}

// forSet are the options for the profile of a set.
func (o SeccompOptions) forSet(p *plan.Plan, set kubernetesSet) SeccompOptions {
	// A name is accepted for the output, which has several profiles.
	o.Standing, o.Accept = slices.Concat(o.Standing, o.Accept), nil
	o.Grants = set.rules
	decided := len(p.WithAlgorithms(set.rules)) > 0
	if set.left {
		o.Standing = append(o.Standing, set.rules...) // KernelGaps says it
	}
	if o.Socketcall != harden.SocketcallBroker && (!decided || set.left) {
		o.Broker = ""
	}
	return o
}

// gapsOfSet leaves out that a profile denies the rules of others, and what the
// kernel half decides.
func gapsOfSet(p *plan.Plan, set kubernetesSet, gaps []plan.Gap) []plan.Gap {
	return slices.DeleteFunc(slices.Clone(gaps), func(g plan.Gap) bool {
		rule := slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Name == g.Name })
		return rule && (!slices.Contains(set.rules, g.Name) || set.left)
	})
}

// distinctGaps leaves out gaps that say the same.
func distinctGaps(gaps []plan.Gap) []plan.Gap {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(gaps), func(g plan.Gap) bool {
		before := seen[g.String()]
		seen[g.String()] = true
		return before
	})
}
