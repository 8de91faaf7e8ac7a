package plan

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Explanation is a decision with its reason.
type Explanation struct {
	Decision
	Request Request
	// Nearest is the rule that a denied request came nearest to: nil if it met
	// no condition of any rule.
	Nearest *policy.Rule
	Misses  []Miss // why Nearest does not allow it
	Rules   int    // how many rules the plan has
}

// Miss is a condition that did not hold.
type Miss struct {
	Condition string `json:"condition"` // "algorithm", "binary", "user", "capability", "unit", "subject"
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

// String says it in one paragraph, without a newline at the end.
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

// Reason says it in one line for a log record, whatever the names in it hold:
// which rule allows, or why the nearest one does not.
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
	return oneLine(fmt.Sprintf("rule %s: %s", e.Nearest.Name, strings.Join(texts, "; ")), maxReason)
}

// oneLine escapes what a log or a terminal would not show, and cuts the text
// to about the limit.
func oneLine(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= limit {
			return b.String() + "…"
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// opens says that a rule allows more than the algorithm that was asked for.
func (e Explanation) opens() string {
	for _, a := range e.Rule.Algorithms {
		if a.Type == e.Request.Algorithm.Type && a.Name == anyName {
			return fmt.Sprintf(", which opens every %s algorithm", a.Type)
		}
	}
	return ""
}

func algorithmMiss(rule *policy.Rule, r *Request) string {
	if r.Algorithm.Name == anyName {
		return fmt.Sprintf("algorithm %s: a request names one algorithm, not a whole type", r.Algorithm)
	}
	var sameType []string
	for _, a := range rule.Algorithms {
		if a.Type == r.Algorithm.Type {
			sameType = append(sameType, a.Name)
		}
	}
	if len(sameType) == 0 {
		return fmt.Sprintf("algorithm %s: the rule allows no %s", r.Algorithm, typeName(r.Algorithm.Type))
	}
	return fmt.Sprintf("algorithm %s is not among %s: %s", r.Algorithm, r.Algorithm.Type, some(sameType))
}

func typeName(t afalg.Type) string {
	if t == "" {
		return "algorithm without a type"
	}
	return string(t)
}

func subjectMiss(*policy.Rule, *Request) string {
	return "the rule names nobody: no binary, user, capability or unit"
}

func binaryMiss(rule *policy.Rule, r *Request) string {
	if !known(r.Binary) {
		return "the binary is not known; the rule asks for " + some(paths(rule))
	}
	if b := ofPath(rule, r.Binary); b != nil {
		return contentMiss(*b, r)
	}
	return fmt.Sprintf("binary %s is not among %s", r.Binary, some(paths(rule)))
}

// ofPath finds the entry of a path, one with a digest first: without one it
// may fail only because the path is claimed.
func ofPath(rule *policy.Rule, path string) *policy.Binary {
	var found *policy.Binary
	for i, b := range rule.Binaries {
		if b.Path == path && (found == nil || found.SHA256 == "") {
			found = &rule.Binaries[i]
		}
	}
	return found
}

func contentMiss(b policy.Binary, r *Request) string {
	switch {
	case b.SHA256 == "":
		return fmt.Sprintf("the path %s is what the container says it is; to hold there, the rule needs its sha256", b.Path)
	case !known(r.SHA256):
		return fmt.Sprintf("the sha256 of %s is not known; the rule asks for %s", b.Path, b.SHA256)
	default:
		return fmt.Sprintf("the sha256 of %s is %s, the rule asks for %s", b.Path, r.SHA256, b.SHA256)
	}
}

func paths(rule *policy.Rule) []string {
	var list []string
	for _, b := range rule.Binaries {
		list = append(list, b.Path)
	}
	return list
}

func userMiss(rule *policy.Rule, r *Request) string {
	user := r.User
	if r.UID != nil {
		user = strings.TrimSpace(user + " (uid " + strconv.FormatUint(uint64(*r.UID), 10) + ")")
	}
	if user == "" {
		return "the user is not known; the rule asks for " + some(rule.Users)
	}
	return fmt.Sprintf("user %s is not among %s", user, some(rule.Users))
}

func capabilityMiss(rule *policy.Rule, r *Request) string {
	if len(r.Capabilities) == 0 {
		return "the request holds no capability; the rule asks for " + oneOf(rule.Capabilities)
	}
	return fmt.Sprintf("the request holds %s; the rule asks for %s", some(r.Capabilities), oneOf(rule.Capabilities))
}

func unitMiss(rule *policy.Rule, r *Request) string {
	if !known(r.Unit) {
		return "the request belongs to no unit; the rule asks for " + oneOf(rule.Units)
	}
	return fmt.Sprintf("unit %s is not among %s", r.Unit, some(rule.Units))
}

func oneOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "one of " + some(list)
}

// shown is how many items of a list a sentence can carry.
const shown = 6

func some(list []string) string {
	if len(list) <= shown {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
}
