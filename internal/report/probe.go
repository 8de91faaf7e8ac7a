package report

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/probe"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Probe is the result of probe: what the running kernel answered.
type Probe struct {
	Header
	probe.Report
}

// NewProbe is the report of what was asked.
func NewProbe(r probe.Report) *Probe {
	word := Closed
	if r.Open {
		word = Open
	}
	return &Probe{NewHeader("probe", word), r}
}

// Text writes a table of the routes.
func (r *Probe) Text(t *term.Printer) {
	t.Notef("kernel %s, %s, AF_ALG %s (%s), seccomp %s", r.Kernel, r.Arch, r.AFALG.State, r.AFALG.Why, seccompText(r.Seccomp))
	var rows [][]string
	for _, route := range r.Routes {
		rows = append(rows, []string{string(route.Route), string(route.Verdict), term.Dash(route.Errno), term.Dash(route.Control), route.Detail})
	}
	t.Table([]string{"route", "verdict", "errno", "control", "what it means"}, rows)
}

func seccompText(s probe.Seccomp) string {
	if s.Filters > 0 {
		return fmt.Sprintf("%s (%s)", s.Mode, term.Count(s.Filters, "filter"))
	}
	return s.Mode
}
