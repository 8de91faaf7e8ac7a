package gen

import (
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// commentWidth is where the lines of a generated comment end, in bytes; a
// longer word stands alone.
const commentWidth = 78

// Header is the comment that starts an output: what made it, what it is, and
// the gaps. Each paragraph is wrapped; none can leave its comment, whatever
// the names in it hold.
func (c Common) Header(p *plan.Plan, notes []string, gaps []plan.Gap) string {
	return c.headerAs("# ", p, notes, gaps)
}

// headerAs is Header in a format whose comments begin in another way.
func (c Common) headerAs(mark string, p *plan.Plan, notes []string, gaps []plan.Gap) string {
	var b strings.Builder
	comment(&b, mark, mark, c.provenance(p))
	for _, note := range notes {
		comment(&b, mark, mark, note)
	}
	if len(gaps) > 0 {
		comment(&b, mark, mark, "What this file cannot express of the policy:")
	}
	for _, g := range gaps {
		comment(&b, mark+"- ", mark+"  ", g.String())
	}
	return b.String()
}

// Comment is a paragraph as a comment of lines with "#"; it cannot leave that,
// whatever it holds.
func Comment(text string) string {
	var b strings.Builder
	comment(&b, "# ", "# ", text)
	return b.String()
}

// breakNotes say whom the policy is known to break.
func breakNotes(p *plan.Plan) (notes []string) {
	for _, b := range p.Breaks() {
		notes = append(notes, "Note: "+b.String())
	}
	return notes
}

// comment writes a paragraph, its first line behind first and the others
// behind rest.
func comment(b *strings.Builder, first, rest, text string) {
	for i, line := range wrap(printable.Line(text), commentWidth-len(first)) {
		if i == 0 {
			b.WriteString(first)
		} else {
			b.WriteString(rest)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
}

// wrap breaks a text at white space.
func wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
