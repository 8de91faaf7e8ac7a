package report

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// ClassExplanation is the result of explain about what a policy closes besides
// AF_ALG: a socket, an option, or a user namespace.
type ClassExplanation struct {
	Header
	Asked    string       `json:"asked"`
	Rule     *Rule        `json:"rule,omitempty"`      // that allows it to who holds it
	ClosedBy *ClosedClass `json:"closed-by,omitempty"` // absent where nothing closes it
	Grant    *Rule        `json:"grant,omitempty"`     // that would allow it
}

// ClosedClass is what closes it.
type ClosedClass struct {
	Class    string   `json:"class"`
	Position string   `json:"position,omitempty"`
	Presets  []string `json:"presets,omitempty"` // that have the class
	Why      string   `json:"why,omitempty"`
}

// NewClassExplanation is the report of a decision. A rule that would allow it
// may be nil.
func NewClassExplanation(asked string, d plan.ClassDecision, wouldAllow *policy.Rule) *ClassExplanation {
	e := &ClassExplanation{Header: NewHeader("explain class", Denied), Asked: asked, Rule: ruleOf(d.Rule)}
	if d.Allowed {
		e.Verdict = Allowed
	} else {
		e.Grant = ruleOf(wouldAllow)
	}
	if c := d.Closed; c != nil {
		e.ClosedBy = &ClosedClass{Class: c.Class, Presets: c.Presets, Why: c.Why}
		if c.Pos != (policy.Pos{}) {
			e.ClosedBy.Position = c.Pos.String()
		}
	}
	return e
}

// Text writes the answer and why.
func (e *ClassExplanation) Text(t *term.Printer) {
	answer := t.Answer(e.Verdict) + ": " + e.Asked
	switch {
	case e.ClosedBy == nil:
		fmt.Fprintln(t.Out, answer+": nothing closes it")
		return
	case e.Rule != nil:
		fmt.Fprintln(t.Out, answer+t.Printable(fmt.Sprintf(" by rule %s (%s)", e.Rule.Name, e.Rule.Position)))
	default:
		fmt.Fprintln(t.Out, answer)
	}
	closed := "closed to others by " + e.ClosedBy.Class
	if e.Rule == nil {
		closed = "closed by " + e.ClosedBy.Class
	}
	if e.ClosedBy.Position != "" {
		closed += " (" + e.ClosedBy.Position + ")"
	}
	t.Printf("%s", closed)
	if len(e.ClosedBy.Presets) > 0 {
		t.Printf("preset: %s", e.ClosedBy.Presets[0])
	}
	if e.ClosedBy.Why != "" {
		t.Printf("why: %s", e.ClosedBy.Why)
	}
	if e.Grant != nil {
		t.Printf("allowed to who holds rule %s (%s)", e.Grant.Name, e.Grant.Position)
	}
}
