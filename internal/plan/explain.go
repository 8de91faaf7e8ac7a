package plan

import (
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Explanation is a decision with its reason.
type Explanation struct {
	Decision
	Request Request
	// Nearest is the rule that a denied request came nearest to: nil if it met
	// no condition of any rule.
	Nearest *policy.Rule
	Misses  []Miss // why Nearest does not allow it
	Rules   int    // the number of rules in the plan
}

// Miss is a condition that did not hold.
type Miss struct {
	Condition string `json:"condition"` // "algorithm", "binary", "user", "capability", "unit", "strict-exec", "subject"
	Text      string `json:"text"`
}

// Explain decides as Decide does, and says why.
func Explain(p *Plan, r Request) Explanation {
	e := Explanation{Decision: Decide(p, r), Request: r}
	if p == nil {
		return e
	}
	e.Rules = len(p.Rules)
	if !e.Allowed {
		e.Nearest, e.Misses = nearest(p.Rules, &r)
	}
	return e
}

// nearest picks the rule with the fewest conditions missed, among equals the
// one with the most met, then the first by name.
func nearest(rules []policy.Rule, r *Request) (*policy.Rule, []Miss) {
	var best *policy.Rule
	var bestMisses []Miss
	bestMet := 0
	for i := range rules {
		met, misses := compare(&rules[i], r)
		if met == 0 {
			continue
		}
		closer := best == nil || len(misses) < len(bestMisses) ||
			len(misses) == len(bestMisses) && met > bestMet
		if closer {
			best, bestMisses, bestMet = &rules[i], misses, met
		}
	}
	return best, bestMisses
}

// compare counts the conditions of a rule that hold, and explains the others.
func compare(rule *policy.Rule, r *Request) (met int, misses []Miss) {
	if rule.Anyone {
		met++ // a condition on the subject that everybody meets
	}
	for _, c := range conditions {
		switch {
		case !c.applies(rule):
		case c.holds(rule, r):
			met++
		default:
			misses = append(misses, Miss{c.name, c.miss(rule, r)})
		}
	}
	return met, misses
}

// String returns the explanation as one paragraph, without a newline at the
// end.
func (e Explanation) String() string {
	if e.Allowed {
		return fmt.Sprintf("allowed: %s by rule %s (%s)%s", e.Request.Algorithm, e.Rule.Name, e.Rule.Pos, e.opens())
	}
	denied := "denied: " + e.Request.Algorithm.String()
	switch {
	case e.Rules == 0:
		return denied + ": the policy has no rules, it allows nothing"
	case e.Nearest == nil:
		return fmt.Sprintf("%s: the request meets no condition of any rule (the policy has %d)", denied, e.Rules)
	}
	lines := []string{denied, fmt.Sprintf("nearest rule: %s (%s), but", e.Nearest.Name, e.Nearest.Pos)}
	for _, m := range e.Misses {
		lines = append(lines, "  "+m.Text)
	}
	return strings.Join(lines, "\n")
}

// maxReason bounds a reason, in bytes: paths have up to 4,095.
const maxReason = 1000

// Reason returns the explanation as one line for a log record, whatever the
// names in it hold: which rule allows, or why the nearest one does not.
func (e Explanation) Reason() string {
	switch {
	case e.Allowed:
		return "rule " + e.Rule.Name
	case e.Rules == 0:
		return "the policy has no rules"
	case e.Nearest == nil:
		return "no rule has a condition that holds"
	}
	var texts []string
	for _, m := range e.Misses {
		texts = append(texts, m.Text)
	}
	return printable.Cut(fmt.Sprintf("rule %s: %s", e.Nearest.Name, strings.Join(texts, "; ")), maxReason)
}

// opens says that a rule allows more than the requested algorithm.
func (e Explanation) opens() string {
	for _, a := range e.Rule.Algorithms {
		if a.Type == e.Request.Algorithm.Type && a.Name == anyName {
			return fmt.Sprintf(", which opens every %s algorithm", a.Type)
		}
	}
	return ""
}

func oneOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "one of " + some(list)
}

// shown is the number of items that a sentence can carry.
const shown = 6

func some(list []string) string {
	if len(list) <= shown {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
}
