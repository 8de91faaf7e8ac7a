package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// classes unites what all files deny besides AF_ALG, presets resolved. Nothing
// takes such a denial back.
func (l *loader) classes(p *Plan) {
	var sockets []policy.Socket
	for _, f := range l.order {
		d := f.Deny
		for _, preset := range d.Presets {
			sockets = append(sockets, l.preset(p, preset)...)
		}
		p.Families = append(p.Families, d.Families...)
		sockets = append(sockets, d.Sockets...)
		p.SocketOptions = append(p.SocketOptions, d.SocketOptions...)
		p.UserNamespaces = p.UserNamespaces || d.UserNamespaces
	}
	for _, s := range sockets {
		if c := s.Class(); c.Whole() {
			p.Families = append(p.Families, policy.Family{Name: s.Family, Number: c.Family, Pos: s.Pos})
		} else {
			p.Sockets = append(p.Sockets, s)
		}
	}
	p.Families = sortedBy(slices.Values(p.Families), func(a, b policy.Family) int { return cmp.Compare(a.Number, b.Number) })
	p.SocketOptions = sortedBy(slices.Values(p.SocketOptions), compareMeaning)
	p.Sockets = narrowest(p)
}

// preset returns the sockets of a preset, at the place that names it, and adds
// what else it denies.
func (l *loader) preset(p *Plan, preset policy.Preset) (sockets []policy.Socket) {
	for _, c := range policy.ClassesOf(preset.Name) {
		switch {
		case c.Socket != nil:
			s := *c.Socket
			s.Pos = preset.Pos
			sockets = append(sockets, s)
		case c.SocketOption != nil:
			o := *c.SocketOption
			o.Pos = preset.Pos
			p.SocketOptions = append(p.SocketOptions, o)
		case c.UserNamespaces:
			p.UserNamespaces = true
		}
	}
	return sockets
}

// narrowest sorts the classes, and leaves out what a family or another class
// covers.
func narrowest(p *Plan) []policy.Socket {
	sorted := sortedBy(slices.Values(p.Sockets), compareMeaning)
	covered := func(s policy.Socket) bool {
		c := s.Class()
		return p.Closes(c.Family) || slices.ContainsFunc(sorted, func(o policy.Socket) bool { return o.Class() != c && o.Class().Covers(c) })
	}
	var kept []policy.Socket
	for _, s := range sorted {
		if !covered(s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// warnIdle warns of what rules allow, and nothing denies.
func (l *loader) warnIdle(p *Plan) {
	for _, r := range p.Rules {
		for _, s := range r.Sockets {
			if !slices.ContainsFunc(p.ClosedSockets(), func(c afalg.Sockets) bool { return c.Overlaps(s.Class()) }) {
				l.warnIdleRule(s.Pos, r.Name, s.Class().String())
			}
		}
		for _, o := range r.SocketOptions {
			if !slices.Contains(p.ClosedOptions(), o.Numbers()) {
				l.warnIdleRule(o.Pos, r.Name, o.Numbers().String())
			}
		}
		if r.UserNamespaces && !p.UserNamespaces {
			l.warnIdleRule(r.Pos, r.Name, "user namespaces")
		}
	}
}

func (l *loader) warnIdleRule(pos policy.Pos, rule, what string) {
	l.warnings = append(l.warnings, policy.Warning{Pos: pos, Text: fmt.Sprintf("rule %q allows %s, and nothing denies it", rule, what)})
}
