package plan

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Reaches tells whether there is any algorithm at all that Decide allows this
// subject; the algorithm of the request does not matter. Who is not reached
// gets no socket to ask with. A nil plan and a zero plan reach nobody.
func Reaches(p *Plan, r Request) bool {
	if p == nil {
		return false
	}
	for i := range p.Rules {
		if opensAny(&p.Rules[i]) && admits(&p.Rules[i], &r) {
			return true
		}
	}
	return false
}

// Asks tells whether any rule has a condition of that name, as a Miss has it:
// "binary", "user", "capability", "unit".
func (p *Plan) Asks(name string) bool {
	for _, c := range conditions {
		if c.name == name && slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return c.applies(&r) }) {
			return true
		}
	}
	return false
}

// opensAny tells whether some request meets the rule's algorithms.
func opensAny(rule *policy.Rule) bool {
	for _, a := range rule.Algorithms {
		if a.Type != "" && a.Name != "" { // "*" is met by every name
			return true
		}
	}
	return false
}
