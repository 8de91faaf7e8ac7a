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

// holding is what a container holds that meets these grants and no other.
func (p *Plan) holding(grants []*policy.Grant) (h Holding) {
	exist := ruleNames(p.Rules)
	left := true
	for _, g := range grants {
		for _, r := range g.Rules {
			if slices.Contains(exist, r.Name) {
				h.Rules = append(h.Rules, r.Name)
			}
		}
		h.Brokered = h.Brokered || g.Socketcall == policy.SocketcallBroker
		if p.givesAlgorithms(g) {
			h.Left, left = true, left && g.DecidedBy == policy.DecidedByLSM
		}
	}
	slices.Sort(h.Rules)
	h.Rules, h.Left = slices.Compact(h.Rules), h.Left && left && !h.Brokered
	return h
}
