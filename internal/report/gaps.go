package report

import (
	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Gaps is the result of generate: what the output cannot express of the policy.
type Gaps struct {
	Header        // yes: it is written
	Target string `json:"target"`
	Policy string `json:"policy"`
	Digest string `json:"digest"`
	Output string `json:"output"`
	Gaps   []Gap  `json:"gaps"`
	// Breaks are those whom the policy is known to break, by any output.
	Breaks []plan.Break `json:"breaks,omitempty"`
	Reason string       `json:"reason,omitempty"` // for a no
}

// Gap is one of them; a wider or breaking one was accepted if something is
// written.
type Gap struct {
	Kind   plan.GapKind  `json:"kind"` // stricter, different, wider or breaking
	Name   string        `json:"name"`
	Routes []afalg.Route `json:"routes,omitempty"`
	Text   string        `json:"text"`
}

// NewGaps is the report of a policy that was rendered for a target, to a path, or
// of the error by which it was not.
func NewGaps(target, path string, p *plan.Plan, gaps []plan.Gap, err error) *Gaps {
	r := &Gaps{NewHeader("generate", Yes), target, p.Name, p.Digest, path, GapsOf(gaps), p.Breaks(), ""}
	if err != nil {
		r.Verdict, r.Reason = No, err.Error()
	}
	return r
}

// GapsOf is the form of gaps in reports.
func GapsOf(gaps []plan.Gap) []Gap {
	all := []Gap{}
	for _, g := range gaps {
		all = append(all, Gap{g.Kind, g.Name, g.Routes, g.Text})
	}
	return all
}
