package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Granted returns the plan with only the named rules of p: a workload with
// these grants may do what it allows. It answers and closes as p does, has no
// grants to give, and has its own digest. A name that p does not have is an
// error.
func (p *Plan) Granted(names []string) (*Plan, error) {
	granted, unknown := p.GrantedKnown(names)
	if len(unknown) == 0 {
		return granted, nil
	}
	var quoted []string
	for _, name := range unknown {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	text := "the policy has no rule " + strings.Join(quoted, ", ")
	if p == nil || len(p.Rules) == 0 {
		return nil, errors.New(text + ": it has none at all")
	}
	return nil, errors.New(text + "; its rules are " + some(ruleNames(p.Rules)))
}

// GrantedKnown is Granted for a policy that has changed since the grants were
// made: it leaves out the names that p does not have any more, and returns
// them, sorted. Uses that only they allowed are denied. A nil plan has no
// rules.
func (p *Plan) GrantedKnown(names []string) (granted *Plan, unknown []string) {
	if p == nil {
		p = &Plan{}
	}
	left := make(map[string]bool, len(names))
	for _, name := range names {
		left[name] = true
	}
	g := *p
	g.Families, g.Sockets, g.SocketOptions = slices.Clone(p.Families), slices.Clone(p.Sockets), slices.Clone(p.SocketOptions)
	g.Rules, g.Grants = nil, nil
	for _, r := range p.Rules {
		if left[r.Name] {
			g.Rules = append(g.Rules, r)
			delete(left, r.Name)
		}
	}
	g.Digest = digest(&g)
	for name := range left {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	return &g, unknown
}

func ruleNames(rules []policy.Rule) []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.Name
	}
	return names
}
