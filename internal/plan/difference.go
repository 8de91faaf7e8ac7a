package plan

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Difference is something that holds under one plan and not under another.
type Difference struct {
	Change string `json:"change"` // one of the words below
	What   string `json:"what"`   // printable
}

// Changes of a request, of a rule that a container holds, and of the rest of a
// policy.
const (
	NowAllowed = "allowed"
	NowDenied  = "denied"
	NowGranted = "granted"
	NowTaken   = "taken"
	NowChanged = "changed"
)

// Differences returns the changes in the meaning of a policy. It asks Decide
// and GrantsOf under both plans about each subject and each container that a
// rule or a grant of either names. nil stands for the plan that gives nothing.
func Differences(before, after *Plan) []Difference {
	if before == nil {
		before = &Plan{}
	}
	if after == nil {
		after = &Plan{}
	}
	var all []Difference
	if before.Digest != "" && after.Digest != "" {
		all = settings(before, after)
	}
	all = append(all, decided(before, after)...)
	all = append(all, opened(before, after)...)
	return append(all, held(before, after)...)
}

func settings(before, after *Plan) (all []Difference) {
	for _, s := range []struct{ key, old, new string }{
		{"socket-errno", before.SocketErrno.Name, after.SocketErrno.Name},
		{"bind-errno", before.BindErrno.Name, after.BindErrno.Name},
		{"closed", closedNames(before), closedNames(after)},
		{"zero-copy", zeroCopyWord(before), zeroCopyWord(after)},
		{"unconfined", string(before.Unconfined.orRefuse()), string(after.Unconfined.orRefuse())},
	} {
		if s.old != s.new {
			all = append(all, Difference{NowChanged, fmt.Sprintf("%s: %s, was %s", s.key, s.new, s.old)})
		}
	}
	was, is := expectedTexts(before), expectedTexts(after)
	for _, text := range lacking(is, was) {
		all = append(all, Difference{NowChanged, "expected to be open: " + text})
	}
	for _, text := range lacking(was, is) {
		all = append(all, Difference{NowChanged, "expected to be open no more: " + text})
	}
	return all
}

func expectedTexts(p *Plan) (all []string) {
	for _, e := range p.ExpectOpen {
		who := slices.Concat(e.Units, e.Binaries)
		if e.OutsideContainers {
			who = append([]string{"outside containers"}, who...)
		}
		all = append(all, fmt.Sprintf("%s, for %s", e.Reason, strings.Join(who, ", ")))
	}
	return all
}

// lacking lists what the second list lacks of the first.
func lacking(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

func closedNames(p *Plan) string { return cmp.Or(strings.Join(p.ClosedNames(), ", "), "none") }

func zeroCopyWord(p *Plan) string { return cmp.Or(string(p.ZeroCopy), "not said") }

// opened compares what rules allow of the denied classes.
func opened(before, after *Plan) (all []Difference) {
	was, is := openedTexts(before), openedTexts(after)
	for _, text := range lacking(is, was) {
		all = append(all, Difference{NowAllowed, text})
	}
	for _, text := range lacking(was, is) {
		all = append(all, Difference{NowDenied, text})
	}
	return all
}

func openedTexts(p *Plan) (all []string) {
	for _, r := range p.Rules {
		for _, name := range OpenedBy([]policy.Rule{r}).Names() {
			all = append(all, name+" for workloads that hold rule "+r.Name)
		}
	}
	return all
}

// maxAsked bounds the questions about two plans.
const maxAsked = 20_000

// asked is a request that stands for all of its kind.
type asked struct {
	Request
	subject string
}

// decided compares the answers of Decide. Algorithms of one subject share a
// line.
func decided(before, after *Plan) []Difference {
	requests, more := askedOf(before, after)
	lines := map[string]map[string][]string{NowAllowed: {}, NowDenied: {}}
	seen := map[string]bool{}
	for _, r := range requests {
		key := r.subject + "\n" + r.Algorithm.String()
		was, is := Decide(before, r.Request).Allowed, Decide(after, r.Request).Allowed
		if was == is || seen[key] {
			continue
		}
		seen[key] = true
		change := NowDenied
		if is {
			change = NowAllowed
		}
		name := r.Algorithm.String()
		if r.Algorithm.Name == everyOther {
			name = "every other " + string(r.Algorithm.Type)
		}
		lines[change][r.subject] = append(lines[change][r.subject], name)
	}
	var all []Difference
	for _, change := range []string{NowAllowed, NowDenied} {
		for _, subject := range slices.Sorted(maps.Keys(lines[change])) {
			names := slices.Sorted(slices.Values(lines[change][subject]))
			all = append(all, Difference{change, strings.Join(names, ", ") + " for " + subject})
		}
	}
	if more {
		all = append(all, Difference{NowChanged, fmt.Sprintf("there are more subjects than the %d that were compared", maxAsked)})
	}
	return all
}

// everyOther is an algorithm that no rule names; a rule with "*" allows it.
const everyOther = "every-other"

func askedOf(plans ...*Plan) (all []asked, more bool) {
	for _, p := range plans {
		for i := range p.Rules {
			rule := &p.Rules[i]
			for s := range subjectsOf(rule) {
				for _, a := range rule.Algorithms {
					if len(all) == maxAsked {
						return all, true
					}
					r := s
					r.Algorithm = a.Algorithm
					if a.Name == afalg.AnyName {
						r.Algorithm.Name = everyOther
					}
					all = append(all, r)
				}
			}
		}
	}
	return all, false
}

// subjectsOf yields a subject for each way to meet the conditions of a rule, and
// no more of it than that.
func subjectsOf(rule *policy.Rule) iter.Seq[asked] {
	return func(yield func(asked) bool) { meetAll(subjectConditions, rule, asked{}, yield) }
}

// meetAll yields what a has for each way to meet the conditions besides. It
// reports whether more is wanted.
func meetAll(left []condition, rule *policy.Rule, a asked, yield func(asked) bool) bool {
	if len(left) == 0 {
		a.subject = cmp.Or(a.subject, "anyone")
		return yield(a)
	}
	ways := left[0].ways(rule)
	if len(ways) == 0 {
		return meetAll(left[1:], rule, a, yield)
	}
	for _, w := range ways {
		if !meetAll(left[1:], rule, a.by(w), yield) {
			return false
		}
	}
	return true
}

// by is a request that meets one condition more.
func (a asked) by(w way) asked {
	w.take(&a.Request)
	a.subject = joined(a.subject, w.text)
	return a
}

func joined(text, more string) string {
	if text == "" {
		return more
	}
	return text + ", " + more
}

// held compares what GrantsOf says, and who makes 32-bit sockets.
func held(before, after *Plan) []Difference {
	seen := map[string]bool{}
	var all []Difference
	for _, p := range []*Plan{before, after} {
		for i := range p.Grants {
			for c, who := range containersOf(&p.Grants[i]) {
				if seen[who] || len(seen) == maxAsked {
					continue
				}
				seen[who] = true
				was, is := holds(before, c), holds(after, c)
				all = append(all, lost(NowGranted, is, was, who)...)
				all = append(all, lost(NowTaken, was, is, who)...)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Difference) int { return strings.Compare(a.Change+a.What, b.Change+b.What) })
	return all
}

func holds(p *Plan, c Container) []string {
	rules, _ := p.GrantsOf(c)
	for i, r := range rules {
		rules[i] = "rule " + r
		if p.LeftToKernel(c) {
			rules[i] += " by the kernel half"
		}
	}
	if p.BrokersSocketcall(c) {
		rules = append(rules, "the sockets of 32-bit programs")
	}
	return rules
}

func lost(change string, has, lacks []string, who string) []Difference {
	only := lacking(has, lacks)
	if len(only) == 0 {
		return nil
	}
	return []Difference{{change, strings.Join(only, ", ") + ": container " + who}}
}

// containersOf yields a container for each way to meet the conditions of a
// grant, and no more of it than that, with the words for it.
func containersOf(g *policy.Grant) iter.Seq2[Container, string] {
	return func(yield func(Container, string) bool) {
		meetGrant(append([]grantCondition{platformCondition}, grantConditions...), g, Container{}, "", yield)
	}
}

// meetGrant is meetAll for a grant.
func meetGrant(left []grantCondition, g *policy.Grant, c Container, who string, yield func(Container, string) bool) bool {
	if len(left) == 0 {
		return yield(c, who)
	}
	ways := left[0].ways(g)
	if len(ways) == 0 {
		return meetGrant(left[1:], g, c, who, yield)
	}
	for _, w := range ways {
		next := c
		w.take(&next)
		if !meetGrant(left[1:], g, next, joined(who, w.text), yield) {
			return false
		}
	}
	return true
}
