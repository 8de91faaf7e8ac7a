package harden

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// classes is what a result closes.
type classes struct {
	families       []uint32        // whole ones, AF_ALG among them, sorted
	narrow         []afalg.Sockets // those within a family, whose family is not closed
	options        []afalg.SocketOption
	userNamespaces bool
}

// classesOf is what a plan closes to a workload that holds rules. A filter cannot
// open a part of what it closes: where a rule allows less than a denied class,
// the class stays closed.
func classesOf(p *plan.Plan, held []policy.Rule) classes {
	opened := plan.OpenedBy(held)
	c := classes{families: []uint32{afalg.Family}, userNamespaces: p.UserNamespaces && !opened.UserNamespaces}
	for _, s := range p.ClosedSockets() {
		switch {
		case slices.ContainsFunc(opened.Sockets, func(o afalg.Sockets) bool { return o.Covers(s) }):
		case s.Whole():
			c.families = append(c.families, s.Family)
		case s.Family != afalg.Family:
			c.narrow = append(c.narrow, s)
		}
	}
	slices.Sort(c.families)
	c.families = slices.Compact(c.families)
	for _, o := range p.ClosedOptions() {
		if !slices.Contains(opened.Options, o) {
			c.options = append(c.options, o)
		}
	}
	return c
}

// held looks up the rules that a workload holds.
func (o Options) held(p *plan.Plan) ([]policy.Rule, error) { return p.RulesNamed(o.Grants) }

// onlyClasses reports whether a rule allows denied classes and no algorithm.
func onlyClasses(r policy.Rule) bool { return r.OpensClasses() && len(r.Algorithms) == 0 }

// within lists the closed classes that are narrower than their family.
func (c classes) within(family uint32) []afalg.Sockets {
	return slices.DeleteFunc(slices.Clone(c.narrow), func(s afalg.Sockets) bool { return s.Family != family })
}

// narrowFamilies lists the families of which classes are closed, sorted.
func (c classes) narrowFamilies() []uint32 {
	var all []uint32
	for _, s := range c.narrow {
		all = append(all, s.Family)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// callNames lists the calls that closing these classes touches, besides those
// that make sockets.
func (c classes) callNames() []string {
	var names []string
	if len(c.options) > 0 {
		names = append(names, callSetsockopt)
	}
	if c.userNamespaces {
		names = append(names, namespaceCalls...)
	}
	return names
}

// openedClasses are the gaps of rules that allow denied classes. Of the
// conditions of a rule a filter sees none.
func openedClasses(p *plan.Plan, held []policy.Rule) []plan.Gap {
	var gaps []plan.Gap
	left := classesOf(p, held)
	for _, r := range held {
		if !r.OpensClasses() {
			continue
		}
		opened := plan.OpenedBy([]policy.Rule{r})
		if !r.Anyone {
			gaps = append(gaps, plan.Wider.Gap(r.Name, nil,
				"a filter sees neither binary nor user: the whole workload may have "+strings.Join(opened.Names(), ", ")+"; give the rule to a workload of its own"))
		}
		for _, s := range opened.Sockets {
			if closed, ok := left.overlapping(s); ok {
				gaps = append(gaps, plan.Stricter.Gap(r.Name, nil,
					fmt.Sprintf("%s stays closed: the policy denies %s, and a filter opens that whole or not at all", s, closed)))
			}
		}
	}
	return gaps
}

// overlapping finds a closed class that shares sockets with another.
func (c classes) overlapping(s afalg.Sockets) (afalg.Sockets, bool) {
	for _, f := range c.families {
		if f == s.Family {
			return afalg.Sockets{Family: f}, true
		}
	}
	for _, n := range c.within(s.Family) {
		if n.Overlaps(s) {
			return n, true
		}
	}
	return afalg.Sockets{}, false
}
