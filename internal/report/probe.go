package report

import (
	"fmt"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
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

// Text writes a table of the routes, and one of what the policy closes besides.
func (r *Probe) Text(t *term.Printer) {
	t.Notef("kernel %s, %s, AF_ALG %s (%s), seccomp %s", r.Kernel, r.Arch, r.AFALG.State, r.AFALG.Why, seccompText(r.Seccomp))
	var rows [][]string
	for _, route := range r.Routes {
		rows = append(rows, []string{string(route.Route), string(route.Verdict), term.Dash(route.Errno), term.Dash(route.Control), route.Detail})
	}
	t.Table([]string{"route", "verdict", "errno", "control", "what it means"}, rows)
	rows = nil
	for _, c := range r.Classes {
		rows = append(rows, []string{c.Class, string(c.Verdict), term.Dash(c.Errno), term.Dash(c.Control), c.Detail})
	}
	if rows != nil {
		t.Table([]string{"closed by the policy", "verdict", "errno", "control", "what it means"}, rows)
	}
}

// ProbeClasses are what a policy closes besides AF_ALG to a workload that holds
// some rules, as the prober asks about it.
func ProbeClasses(p *plan.Plan, held []policy.Rule) []probe.Class {
	var all []probe.Class
	opened := plan.OpenedBy(held)
	for _, s := range p.ClosedSockets() {
		if !slices.ContainsFunc(opened.Sockets, func(o afalg.Sockets) bool { return o.Covers(s) }) {
			all = append(all, probe.Class{Name: s.String(), Sockets: &s, Modules: modulesOf(s)})
		}
	}
	for _, o := range p.ClosedOptions() {
		if plan.DecideOption(p, held, o).Allowed {
			continue
		}
		all = append(all, probe.Class{Name: o.String(), Option: &o})
	}
	if !plan.DecideUserNamespace(p, held).Allowed {
		all = append(all, probe.Class{Name: plan.UserNamespaces})
	}
	return all
}

// modulesOf lists the modules that make sockets of a class, or of a part of it.
func modulesOf(s afalg.Sockets) (modules []string) {
	for _, known := range policy.Classes() {
		if known.Socket == nil {
			continue
		}
		c := known.Socket.Class()
		if slices.ContainsFunc(append(c.Also(), c), func(c afalg.Sockets) bool { return c.Covers(s) || s.Covers(c) }) {
			modules = append(modules, known.Modules...)
		}
	}
	return modules
}

func seccompText(s probe.Seccomp) string {
	if s.Filters > 0 {
		return fmt.Sprintf("%s (%s)", s.Mode, term.Count(s.Filters, "filter"))
	}
	return s.Mode
}
