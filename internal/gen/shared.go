package gen

import (
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Header is the comment that starts an output of a package that renders a target
// of its own.
func (c Common) Header(p *plan.Plan, notes []string, gaps []plan.Gap) string {
	return c.header(p, notes, gaps)
}

// Settle returns an error unless the gaps are accepted.
func (c Common) Settle(gaps []plan.Gap) error { return c.settle(gaps) }

// Comment is a paragraph as a comment of lines with "#"; it cannot leave that,
// whatever it holds.
func Comment(text string) string {
	var b strings.Builder
	comment(&b, "# ", "# ", text)
	return b.String()
}
