package host

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// classes closes what the policy closes besides AF_ALG, as far as it has code of
// its own in the kernel.
func (d *decision) classes() {
	var closed []afalg.Sockets
	for _, f := range d.plan.Families {
		closed = append(closed, afalg.Sockets{Family: f.Number})
	}
	for _, s := range d.plan.Sockets {
		closed = append(closed, s.Class())
	}
	kept := d.needs.kept()
	for _, s := range closed {
		d.class(s, kept)
	}
	if len(d.plan.SocketOptions) > 0 {
		var names []string
		for _, o := range d.plan.ClosedOptions() {
			names = append(names, o.String())
		}
		d.wider(policy.GapSocketOptions, "no setting of a host closes "+strings.Join(names, ", "))
	}
}

// class closes one class of sockets, unless modules that rules need make it.
func (d *decision) class(s afalg.Sockets, kept []string) {
	known := catalogued(s)
	switch {
	case d.needs.opens(s):
		return // what rules open has its gaps
	case len(known.Modules) == 0:
		d.unknownClass(s)
	case slices.ContainsFunc(known.Modules, func(m string) bool { return slices.Contains(kept, m) }):
		d.wider(policy.GapSockets, fmt.Sprintf("%s stays open: a rule needs %s", s, strings.Join(known.Modules, " and ")))
	case d.has(known.Modules):
		d.alsoCloses(known.Modules, s)
	default:
		c := code{what: s.String(), gap: policy.GapSockets, modules: known.Modules, initcalls: known.Initcalls, why: known.Why}
		if known.Breaks != "" {
			c.breaks = []string{known.Breaks}
		}
		d.close(c)
	}
}

// catalogued is what is known of exactly this class.
func catalogued(s afalg.Sockets) policy.Class {
	for _, c := range policy.Classes() {
		if c.Socket != nil && c.Socket.Class() == s {
			return c
		}
	}
	return policy.Class{}
}

// has reports whether modules are refused already, for another class.
func (d *decision) has(modules []string) bool {
	return slices.ContainsFunc(d.Modules, func(m ModprobeRule) bool { return m.Module == modules[0] })
}

func (d *decision) alsoCloses(modules []string, s afalg.Sockets) {
	for i := range d.Modules {
		if m := &d.Modules[i]; slices.Contains(modules, m.Module) {
			m.Closes = append(m.Closes, s.String())
		}
	}
	for i := range d.Arguments {
		if a := &d.Arguments[i]; slices.Contains(catalogued(s).Initcalls, a.Value) {
			a.Closes = append(a.Closes, s.String())
		}
	}
}

// unknownClass stops the load on demand of a class of which no module is known. That
// closes it only where a module has it that nothing else loads.
func (d *decision) unknownClass(s afalg.Sockets) {
	alias := ""
	switch {
	case s.Whole():
		alias = fmt.Sprintf("net-pf-%d", s.Family)
	case s.Family == unix.AF_NETLINK && s.Type == 0:
		alias = fmt.Sprintf("net-pf-%d-proto-%d", s.Family, s.Protocol)
	default:
		d.wider(policy.GapSockets, fmt.Sprintf("%s stays open: no module has this part of the family alone", s))
		return
	}
	d.Modules = append(d.Modules, ModprobeRule{alias, About{
		Why: "The policy closes it, and this is the name by which the kernel asks for its module.", Closes: []string{s.String()},
		Takes: TakesNow, Open: []string{s.String() + ", where it is built in, or its module is loaded by name"}, Undo: "remove the line",
	}})
	d.wider(policy.GapSockets, fmt.Sprintf("%s stays open where it is built in or loaded: which module has it is not known, and only its load on demand is stopped", s))
}

// needs are what rules of a policy allow to somebody, so that it stays.
type needs struct {
	types  map[afalg.Type][]string // the names of the rules
	opened plan.Opened             // of the denied classes
}

func needsOf(p *plan.Plan) needs {
	n := needs{types: map[afalg.Type][]string{}, opened: plan.OpenedBy(p.Rules)}
	for _, r := range p.Rules {
		for _, a := range r.Algorithms {
			if !slices.Contains(n.types[a.Type], r.Name) {
				n.types[a.Type] = append(n.types[a.Type], r.Name)
			}
		}
	}
	return n
}

// opens reports whether rules open a class, or a part of it.
func (n needs) opens(s afalg.Sockets) bool {
	return slices.ContainsFunc(n.opened.Sockets, func(o afalg.Sockets) bool { return o.Covers(s) || s.Covers(o) })
}

// kept are the modules of what rules open.
func (n needs) kept() (modules []string) {
	for _, c := range policy.Classes() {
		if c.Socket != nil && n.opens(c.Socket.Class()) {
			modules = append(modules, c.Modules...)
		}
	}
	return modules
}
