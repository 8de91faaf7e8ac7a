package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// grants unites the grants of all files, each normal, and checks that the rules
// that they give exist.
func (l *loader) grants() []policy.Grant {
	var all []policy.Grant
	for _, f := range l.order {
		for _, g := range f.Containers.Grants {
			if len(all) == policy.MaxGrants {
				l.fail(g.Pos, "more than %d grants in all", policy.MaxGrants)
				return nil
			}
			all = append(all, normal(g))
		}
	}
	l.checkGranted(all)
	return sortedBy(slices.Values(all), compareMeaning)
}

// These bound the work and the text for a policy of nonsense: a suggestion
// compares a name with those of all rules.
const (
	maxUnknown = 1_000
	maxHints   = 10
)

// checkGranted reports each rule that a grant gives and no file has, and warns
// of those that no process in a container can meet.
func (l *loader) checkGranted(all []policy.Grant) {
	rules := map[string]policy.Rule{}
	for _, f := range l.order {
		for _, r := range f.Rules {
			rules[r.Name] = r
		}
	}
	names := slices.Sorted(maps.Keys(rules))
	unknown := 0
	for _, g := range all {
		for _, granted := range g.Rules {
			rule, exists := rules[granted.Name]
			if exists {
				l.warnMoot(g, granted, rule)
				continue
			}
			if unknown++; unknown > maxUnknown {
				l.fail(granted.Pos, "and more rules that do not exist; correct these first")
				return
			}
			l.fail(granted.Pos, "grant of %q: %s", granted.Name, noRule(granted.Name, names, unknown <= maxHints))
		}
	}
}

// warnMoot warns of a rule that needs a digest: a path in a container is a
// claim, so only a digest counts there. The kernel half has no digest of what it
// does not find on the host.
func (l *loader) warnMoot(g policy.Grant, granted policy.GrantedRule, rule policy.Rule) {
	if conditions := rule.Conditions(); rule.OpensClasses() && conditions != nil {
		text := fmt.Sprintf("grant of %q: a container that holds it does not start: a filter opens what the rule allows, and sees no %s; write a rule with anyone: true", granted.Name, strings.Join(conditions, " and no "))
		l.warnings = append(l.warnings, policy.Warning{Pos: granted.Pos, Text: text})
		return
	}
	hasDigest := func(b policy.Binary) bool { return b.SHA256 != "" }
	if len(rule.Binaries) > 0 && g.DecidedBy == policy.DecidedByLSM {
		text := fmt.Sprintf("grant of %q: the rule names binaries, and the kernel half knows those of the host alone: it holds for nothing else in a container that is left to it", granted.Name)
		l.warnings = append(l.warnings, policy.Warning{Pos: granted.Pos, Text: text})
		return
	}
	if len(rule.Binaries) > 0 && !slices.ContainsFunc(rule.Binaries, hasDigest) {
		text := fmt.Sprintf("grant of %q: no binary of the rule has a sha256, and none without one counts in a container", granted.Name)
		l.warnings = append(l.warnings, policy.Warning{Pos: granted.Pos, Text: text})
	}
}

func noRule(name string, names []string, hint bool) string {
	const text = "the policy has no such rule"
	if len(names) == 0 {
		return text + ": it has none at all"
	}
	if hint {
		if guess, found := policy.Near(name, names); found {
			return text + `; did you mean "` + guess + `"?`
		}
	}
	return text + "; its rules are " + some(names)
}
