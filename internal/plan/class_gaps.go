package plan

import (
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Closing says which of the denied classes a target closes. The zero value closes
// none.
type Closing struct {
	// Sockets reports whether it closes the whole of a class; nil closes none.
	Sockets        func(afalg.Sockets) bool
	SocketOptions  bool
	UserNamespaces bool
}

func (c Closing) closes(s afalg.Sockets) bool { return c.Sockets != nil && c.Sockets(s) }

// What else closes a class, as the text of a gap says it.
const (
	elsewhere           = "; a seccomp profile closes that (generate seccomp, run, install)"
	elsewhereOrModules  = elsewhere + ", and so does a host without its kernel module (generate host)"
	elsewhereNamespaces = elsewhere + ", and so do RestrictNamespaces= of systemd (generate systemd) and a host's sysctl (generate host)"
)

// ClassGaps are the gaps of a target that cannot close all of the denied
// classes: one for sockets, one for socket options, one for user namespaces.
func (p *Plan) ClassGaps(c Closing) []Gap {
	var gaps []Gap
	var open []string
	for _, s := range p.ClosedSockets() {
		if !c.closes(s) {
			open = append(open, s.String())
		}
	}
	if open != nil {
		gaps = append(gaps, Wider.Gap(policy.GapSockets, nil, strings.Join(open, ", ")+": open, since it cannot be told from what the policy leaves open"+elsewhereOrModules))
	}
	if options := (Opened{Options: p.ClosedOptions()}).Names(); options != nil && !c.SocketOptions {
		gaps = append(gaps, Wider.Gap(policy.GapSocketOptions, nil, strings.Join(options, ", ")+": can be set, since nothing here sees setsockopt"+elsewhere))
	}
	if p.UserNamespaces && !c.UserNamespaces {
		gaps = append(gaps, Wider.Gap(policy.GapUserNamespaces, nil, "anybody can make one, since nothing here sees it"+elsewhereNamespaces))
	}
	return gaps
}

// HookClosing is what closes whole families in the kernel's socket hook.
func (p *Plan) HookClosing() Closing {
	return Closing{Sockets: func(s afalg.Sockets) bool { return p.Closes(s.InHook().Family) }}
}

// Reopened are the classes of sockets that a target closes and of which rules
// allow some, and whether they allow all of each.
func (p *Plan) Reopened(by Closing, rules []policy.Rule) (classes []afalg.Sockets, whole bool) {
	allowed := OpenedBy(rules).Sockets
	whole = true
	for _, c := range p.ClosedSockets() {
		if by.closes(c) && slices.ContainsFunc(allowed, func(s afalg.Sockets) bool { return c.Overlaps(s) }) {
			classes = append(classes, c)
			whole = whole && slices.ContainsFunc(allowed, func(s afalg.Sockets) bool { return s.Covers(c) })
		}
	}
	return classes, whole
}

// HeldBack are the gaps of a target that closes whole families to everybody: one
// for each rule that allows a socket of such a family.
func (p *Plan) HeldBack(kind GapKind) []Gap {
	var gaps []Gap
	for _, r := range p.Rules {
		var names []string
		classes, _ := p.Reopened(p.HookClosing(), []policy.Rule{r})
		for _, c := range classes {
			names = append(names, c.String())
		}
		if names != nil {
			gaps = append(gaps, kind.Gap(r.Name, nil, strings.Join(names, ", ")+": closed to everybody, and so to those whom the rule allows it"))
		}
	}
	return gaps
}
