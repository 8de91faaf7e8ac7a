package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// ClassDecision is the answer to a question about what a plan closes besides
// AF_ALG. The zero decision is a denial.
type ClassDecision struct {
	Allowed bool
	Rule    *policy.Rule // that allows what is closed to others; nil if nothing closes it
	Closed  *Closed      // nil if nothing closes it, and with a nil plan
}

// Closed is what closes a class, and where that is said.
type Closed struct {
	Class   string
	Pos     policy.Pos // zero for user namespaces, and for AF_ALG
	Presets []string   // that have it
	Why     string     // it may be denied, where that is known
}

// DecideSocket is the reference semantics of denied classes: whether a workload
// that holds the rules may make a socket with these arguments, as the kernel
// takes them and by the numbers of all machines but MIPS. Every socket may be
// made that no class contains, and of the others those that a rule allows.
// AF_ALG is closed to all: what may be done with it Decide decides. Nothing is
// allowed with a nil plan.
func DecideSocket(p *Plan, held []policy.Rule, family, typ, protocol uint32) ClassDecision {
	contains := func(s afalg.Sockets) bool { return s.Contains(family, typ, protocol) }
	if p == nil {
		return ClassDecision{}
	}
	if family == afalg.Family {
		return ClassDecision{Closed: &Closed{Class: afalg.FamilyName(family)}}
	}
	if !slices.ContainsFunc(p.ClosedSockets(), contains) {
		return ClassDecision{Allowed: true}
	}
	return p.opened(held, p.closedSocket(contains), func(o Opened) bool { return slices.ContainsFunc(o.Sockets, contains) })
}

// DecideOption is DecideSocket for setting a socket option.
func DecideOption(p *Plan, held []policy.Rule, option afalg.SocketOption) ClassDecision {
	if p == nil {
		return ClassDecision{}
	}
	i := slices.Index(p.ClosedOptions(), option)
	if i < 0 {
		return ClassDecision{Allowed: true}
	}
	closed := closedBy(option.String(), p.SocketOptions[i].Pos)
	return p.opened(held, closed, func(o Opened) bool { return slices.Contains(o.Options, option) })
}

// DecideUserNamespace is DecideSocket for making a user namespace.
func DecideUserNamespace(p *Plan, held []policy.Rule) ClassDecision {
	switch {
	case p == nil:
		return ClassDecision{}
	case !p.UserNamespaces:
		return ClassDecision{Allowed: true}
	}
	return p.opened(held, closedBy(UserNamespaces, policy.Pos{}), func(o Opened) bool { return o.UserNamespaces })
}

// opened is the decision about something that is closed: a rule may allow it.
func (p *Plan) opened(held []policy.Rule, closed *Closed, opens func(Opened) bool) ClassDecision {
	for i := range held {
		if opens(OpenedBy(held[i : i+1])) {
			return ClassDecision{Allowed: true, Rule: &held[i], Closed: closed}
		}
	}
	return ClassDecision{Closed: closed}
}

// closedSocket finds what the policy says that closes a socket, by itself or as
// another way to ask for it.
func (p *Plan) closedSocket(contains func(afalg.Sockets) bool) *Closed {
	said := func(s afalg.Sockets) bool { return slices.ContainsFunc(withTwins([]afalg.Sockets{s}), contains) }
	for _, f := range p.Families {
		if s := (afalg.Sockets{Family: f.Number}); said(s) {
			return closedBy(s.String(), f.Pos)
		}
	}
	for _, s := range p.Sockets {
		if said(s.Class()) {
			return closedBy(s.Class().String(), s.Pos)
		}
	}
	return nil
}

// closedBy adds what is known of a class.
func closedBy(class string, at policy.Pos) *Closed {
	closed := &Closed{Class: class, Pos: at}
	for _, known := range policy.Classes() {
		if known.String() == class {
			closed.Presets, closed.Why = known.Presets, known.Why
		}
	}
	return closed
}

// String says what closes a class: "AF_RDS (policy.yaml:3:13; preset page-cache)".
func (c Closed) String() string {
	var about []string
	if c.Pos != (policy.Pos{}) {
		about = append(about, c.Pos.String())
	}
	if len(c.Presets) > 0 {
		about = append(about, "preset "+strings.Join(c.Presets, ", "))
	}
	if about == nil {
		return c.Class
	}
	return fmt.Sprintf("%s (%s)", c.Class, strings.Join(about, "; "))
}

// UserNamespaces is the name of their class, as reports have it.
const UserNamespaces = "user namespaces"
