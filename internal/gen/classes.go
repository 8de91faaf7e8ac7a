package gen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const (
	familyALG      = "AF_ALG"
	userNamespaces = "user namespaces"
)

// granter is a target that closes classes, and opens them again to whoever
// holds a rule: to a unit, or under a profile.
type granter struct {
	plan    *plan.Plan
	closing plan.Closing
	routes  []afalg.Route            // those that it closes to AF_ALG
	holder  func(rule string) string // who holds a rule, for people
	exact   func(policy.Rule) bool   // to be the holder is all that the rule asks for
}

// opens lists what the target closes and opens again to a holder of rules.
func (g granter) opens(rules ...policy.Rule) (names []string) {
	if slices.ContainsFunc(rules, policy.Rule.OpensAlgorithms) {
		names = append(names, familyALG)
	}
	return append(names, g.opensClasses(rules...)...)
}

func (g granter) opensClasses(rules ...policy.Rule) (names []string) {
	for _, s := range g.reopened(rules...) {
		names = append(names, s.String())
	}
	if g.closing.UserNamespaces && g.plan.UserNamespaces && plan.OpenedBy(rules).UserNamespaces {
		names = append(names, userNamespaces)
	}
	return names
}

func (g granter) reopened(rules ...policy.Rule) []afalg.Sockets {
	classes, _ := g.plan.Reopened(g.closing, rules)
	return classes
}

// gaps says, rule by rule, what the target makes of grants. It cannot tell one
// algorithm from another, nor one socket of a family.
func (g granter) gaps(grants []string) []plan.Gap {
	var gaps []plan.Gap
	for _, rule := range g.plan.Rules {
		if slices.Contains(grants, rule.Name) {
			gaps = append(gaps, g.granted(rule)...)
		}
	}
	for _, rule := range g.plan.Rules {
		if opens := g.opens(rule); opens != nil && !slices.Contains(grants, rule.Name) {
			gaps = append(gaps, plan.Stricter.Gap(rule.Name, nil,
				fmt.Sprintf("nobody holds the rule; --grant %s opens %s for it", rule.Name, strings.Join(opens, ", "))))
		}
	}
	return gaps
}

// granted is the gap of a rule that opens more than it allows.
func (g granter) granted(rule policy.Rule) []plan.Gap {
	classes := g.opensClasses(rule)
	_, whole := g.plan.Reopened(g.closing, []policy.Rule{rule})
	var routes []afalg.Route
	var beyond string
	switch {
	case rule.OpensAlgorithms():
		routes, beyond = g.routes, " with every algorithm"
		if !whole {
			beyond += ", type and protocol"
		}
	case classes == nil || whole && g.exact(rule):
		return nil
	case !whole:
		beyond = " with every type and protocol"
	}
	if rule.OpensAlgorithms() || !g.exact(rule) {
		beyond += ", to each binary and user in it"
	}
	text := strings.Join(g.opens(rule), ", ") + " is open to " + g.holder(rule.Name) + beyond
	return []plan.Gap{plan.Wider.Gap(rule.Name, routes, text+plan.Steered(rule))}
}
