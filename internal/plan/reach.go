package plan

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Reaches reports whether Decide allows this subject any algorithm at all; the
// algorithm of the request does not matter. A subject that is not reached gets
// no socket to ask with. A nil plan and a zero plan reach nobody.
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

// HasCondition reports whether any rule has a condition of that name, as in a Miss:
// "binary", "user", "capability", "unit", "strict-exec".
func (p *Plan) HasCondition(name string) bool {
	for _, c := range conditions {
		if c.name == name && slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return c.applies(&r) }) {
			return true
		}
	}
	return false
}

// HasDigest reports whether a rule gives a digest for the executable at a path.
func (p *Plan) HasDigest(path string) bool {
	return slices.ContainsFunc(p.Rules, func(r policy.Rule) bool {
		return slices.ContainsFunc(r.Binaries, func(b policy.Binary) bool { return b.Path == path && b.SHA256 != "" })
	})
}

// opensAny reports whether some request meets the rule's algorithms.
func opensAny(rule *policy.Rule) bool {
	for _, a := range rule.Algorithms {
		if a.Type != "" && a.Name != "" { // every name meets "*"
			return true
		}
	}
	return false
}
