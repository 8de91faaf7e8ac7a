package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/printable"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Text writes a table of the answers, then the findings.
func (r *Filters) Text(t *term.Printer) {
	for _, f := range r.Filters {
		if f.Runtime != "" {
			t.Notef("%s: %s (%s format), as %s compiles it with libseccomp %s at level %d: %s",
				printable.Line(f.Name), f.Machine, f.Kind, f.Runtime, r.Libseccomp, f.Level, term.Count(f.Instructions, "instruction"))
		}
	}
	if t.Tables {
		r.drawn(t)
	} else {
		var rows [][]string
		for _, row := range r.rows() {
			rows = append(rows, []string{row.name, row.machine, row.runtime, row.about, row.abi, row.call, row.verdict, row.detail})
		}
		t.Table(nil, rows)
	}
	r.containersText(t)
	for _, f := range r.Findings {
		if f.Ignored == "" {
			t.Printf("%s: %s: %s; %s [%s]", f.position(), f.Level, f.Message, f.Fix, f.Rule)
		}
	}
	r.concluded(t)
}

// concluded says it all in one line.
func (r *Filters) concluded(t *term.Printer) {
	open := map[string]bool{}
	all := map[string]bool{}
	ignored := 0
	for _, l := range r.rows() {
		if l.ofContainers {
			continue
		}
		all[l.name] = true
		if l.verdict != Closed {
			open[l.name] = true
		}
		if l.ignored != "" {
			ignored++
		}
	}
	levels := map[verify.Level]int{}
	for _, f := range r.Findings {
		if f.Ignored != "" {
			ignored++
		} else {
			levels[f.Level]++
		}
	}
	for _, c := range r.Containers {
		if c.Ignored != "" {
			ignored++
		}
	}
	text := fmt.Sprintf("%s, %d of them open%s; %s, %s, %s", term.Count(len(all), "input"), len(open), r.containersCounted(),
		term.Count(levels[verify.Error], "error"), term.Count(levels[verify.Warning], "warning"), term.Count(levels[verify.Note], "note"))
	if ignored > 0 {
		text += fmt.Sprintf("; ignored: %d", ignored)
	}
	if len(r.Broken) > 0 {
		text += fmt.Sprintf("; could not be read: %d", len(r.Broken))
	}
	conclude(t, r.Verdict, "%s", text+r.lookedText())
}

// drawn writes a table for each filter, machine and question: what all its
// lines would repeat stands above it.
func (r *Filters) drawn(t *term.Printer) {
	all := r.rows()
	for len(all) > 0 {
		head := all[0]
		n := slices.IndexFunc(all, func(l row) bool { return l.heading() != head.heading() })
		if n < 0 {
			n = len(all)
		}
		t.Printf("%s", head.heading())
		var rows [][]string
		for _, l := range all[:n] {
			rows = append(rows, []string{l.abi, l.call, l.verdict, l.detail})
		}
		t.Table([]string{"ABI", "calls", "verdict", "actions, witness"}, rows)
		all = all[n:]
	}
}

func (l row) heading() string {
	text := fmt.Sprintf("%s: %s on %s", l.name, l.about, l.machine)
	switch {
	case l.runtime == term.Dash(""):
		return text
	case strings.Contains(l.runtime, ", "):
		return text + ", as " + strings.ReplaceAll(l.runtime, ", ", " and ") + " compile it"
	}
	return text + ", as " + l.runtime + " compiles it"
}

func (f Finding) position() string {
	if f.Line == 0 {
		return printable.Line(f.File)
	}
	return fmt.Sprintf("%s:%d:%d", printable.Line(f.File), f.Line, f.Column)
}

// row is one line of the table.
type row struct {
	name, file, kind, machine, runtime, about, abi, call, verdict, detail, ignored string

	ofContainers bool
}

// rows joins what is closed alike, and runtimes that agree. The lines of one
// ABI stand together.
func (r *Filters) rows() []row {
	var rows []row
	for _, f := range r.Filters {
		for _, line := range f.rows() {
			if i := slices.IndexFunc(rows, line.sameBut); i < 0 {
				rows = append(rows, line)
			} else if !slices.Contains(strings.Split(rows[i].runtime, ", "), line.runtime) {
				rows[i].runtime += ", " + line.runtime
			}
		}
	}
	first := func(l row) int { return slices.IndexFunc(rows, l.sameABI) }
	return slices.SortedStableFunc(slices.Values(rows), func(a, b row) int { return cmp.Compare(first(a), first(b)) })
}

// sameBut compares lines of the same input, except for the runtime, and for what
// the filter does where that is no matter.
func (l row) sameBut(other row) bool {
	other.runtime, other.detail = l.runtime, l.detail
	return l == other
}

func (l row) sameABI(other row) bool {
	return l.name == other.name && l.machine == other.machine && l.about == other.about && l.abi == other.abi
}

func (f Filter) rows() []row {
	var rows []row
	for _, a := range f.Answers {
		line := row{printable.Line(f.Name), f.File, f.Kind, f.Machine, term.Dash(f.Runtime), a.About, a.ABI, a.title(), a.Verdict, a.detail(), a.Ignored, f.OfContainers}
		closed := func(other row) bool {
			return line.verdict == "closed" && other.verdict == "closed" && line.sameABI(other)
		}
		if i := slices.IndexFunc(rows, closed); i >= 0 {
			rows[i].call += ", " + line.call
			rows[i].detail = join(rows[i].detail, line.detail)
			continue
		}
		rows = append(rows, line)
	}
	return rows
}

// join adds the actions that are not there yet.
func join(actions, more string) string {
	all := strings.Split(actions, ", ")
	for _, a := range strings.Split(more, ", ") {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return strings.Join(all, ", ")
}

// title names the call, and the route where it is not plain.
func (a Answer) title() string {
	if a.Route == string(afalg.RouteSocketHighbits) {
		return "socket (upper bits)"
	}
	if a.Call == "" {
		return fmt.Sprint(a.Nr)
	}
	if a.Route == string(afalg.RouteSocketpair) && a.Call == "socketcall" {
		return "socketcall (socketpair)"
	}
	return a.Call
}

func (a Answer) detail() string {
	text := strings.Join(a.Actions, ", ")
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	if a.Witness != nil {
		text += ": " + a.Witness.String()
	}
	if a.Ignored != "" {
		text += " (ignored: " + a.Ignored + ")"
	}
	return text
}
