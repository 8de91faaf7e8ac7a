package plan

import (
	"fmt"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Holding is what a container may hold by grants.
type Holding struct {
	Rules    []string // sorted
	Brokered bool     // socketcall is left to the agent
	Left     bool     // the kernel half decides about the rules
}

// Holdings lists what containers of a platform may hold, nothing first: by one
// grant, and by two together. What takes three is left out, and what is past the
// most, for this is to have work done ahead.
func (p *Plan) Holdings(platform string, most int) []Holding {
	var some []*policy.Grant
	for i := range p.Grants {
		if g := &p.Grants[i]; len(g.Platforms) == 0 || slices.Contains(g.Platforms, platform) {
			some = append(some, g)
		}
	}
	all, seen := []Holding{}, map[string]bool{}
	add := func(grants ...*policy.Grant) {
		h := p.holding(grants)
		if key := fmt.Sprint(h); !seen[key] && len(all) < most {
			seen[key], all = true, append(all, h)
		}
	}
	add()
	for _, g := range some {
		add(g)
	}
	for i, g := range some {
		for _, other := range some[:i] {
			add(g, other)
		}
	}
	return all
}

// holding is what a container holds that meets these grants and no other, whatever
// they ask for.
func (p *Plan) holding(grants []*policy.Grant) Holding {
	const somebody = "somebody"
	met := *p
	met.Grants = nil
	for _, g := range grants {
		met.Grants = append(met.Grants, policy.Grant{Rules: g.Rules, Socketcall: g.Socketcall, DecidedBy: g.DecidedBy, Names: []string{somebody}})
	}
	c := Container{Vouched: Identity{Name: somebody}}
	rules, _ := met.GrantsOf(c)
	return Holding{rules, met.BrokersSocketcall(c), met.LeftToKernel(c)}
}
