package plan

import (
	"cmp"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Closes reports whether a plan closes a whole socket family besides AF_ALG.
func (p *Plan) Closes(family uint32) bool {
	return slices.ContainsFunc(p.Families, func(f policy.Family) bool { return f.Number == family })
}

// ClosedSockets lists every class of sockets that the plan closes besides AF_ALG:
// whole families first, then narrower ones, and each way to ask for them. No
// class is within another.
func (p *Plan) ClosedSockets() []afalg.Sockets {
	var all []afalg.Sockets
	for _, f := range p.Families {
		all = append(all, afalg.Sockets{Family: f.Number})
	}
	for _, s := range p.Sockets {
		all = append(all, s.Class())
	}
	return outermost(withTwins(all))
}

// ClosedOptions lists the socket options that nobody may set.
func (p *Plan) ClosedOptions() []afalg.SocketOption {
	var all []afalg.SocketOption
	for _, o := range p.SocketOptions {
		all = append(all, o.Numbers())
	}
	return all
}

// ClosedNames says what the plan closes besides AF_ALG, as it stands there.
func (p *Plan) ClosedNames() []string {
	var names []string
	for _, f := range p.Families {
		names = append(names, f.Name)
	}
	for _, s := range p.Sockets {
		names = append(names, s.Class().String())
	}
	return append(names, Opened{Options: p.ClosedOptions(), UserNamespaces: p.UserNamespaces}.Names()...)
}

// ClosesClasses reports whether the plan closes more than whole families: what a
// target that knows families alone cannot express.
func (p *Plan) ClosesClasses() bool {
	return len(p.SocketOptions) > 0 || p.UserNamespaces ||
		slices.ContainsFunc(p.ClosedSockets(), func(s afalg.Sockets) bool { return !s.Whole() })
}

// Opened is what rules allow of the denied classes.
type Opened struct {
	Sockets        []afalg.Sockets
	Options        []afalg.SocketOption
	UserNamespaces bool
}

// OpenedBy unites what rules allow of the denied classes.
func OpenedBy(rules []policy.Rule) Opened {
	var o Opened
	for _, r := range rules {
		for _, s := range r.Sockets {
			o.Sockets = append(o.Sockets, s.Class())
		}
		for _, option := range r.SocketOptions {
			o.Options = append(o.Options, option.Numbers())
		}
		o.UserNamespaces = o.UserNamespaces || r.UserNamespaces
	}
	o.Sockets = outermost(withTwins(o.Sockets))
	return o
}

// Names says what is opened, as reports do.
func (o Opened) Names() []string {
	var names []string
	for _, s := range o.Sockets {
		names = append(names, s.String())
	}
	for _, option := range o.Options {
		names = append(names, option.String())
	}
	if o.UserNamespaces {
		names = append(names, UserNamespaces)
	}
	return names
}

// withTwins adds the other ways to ask for each class.
func withTwins(all []afalg.Sockets) []afalg.Sockets {
	for _, s := range all {
		all = append(all, s.Also()...)
	}
	return all
}

// outermost leaves out what another class covers, and sorts.
func outermost(all []afalg.Sockets) []afalg.Sockets {
	slices.SortFunc(all, compareSockets)
	all = slices.Compact(all)
	return slices.DeleteFunc(slices.Clone(all), func(s afalg.Sockets) bool {
		return slices.ContainsFunc(all, func(o afalg.Sockets) bool { return o != s && o.Covers(s) })
	})
}

func compareSockets(a, b afalg.Sockets) int {
	whole := func(s afalg.Sockets) int { return 1 - ordinal(s.Whole()) }
	return cmp.Or(cmp.Compare(whole(a), whole(b)), cmp.Compare(a.Family, b.Family), cmp.Compare(a.Type, b.Type),
		cmp.Compare(ordinal(a.HasProtocol), ordinal(b.HasProtocol)), cmp.Compare(a.Protocol, b.Protocol))
}

// Break is what a policy is known to break: a class that it closes, who uses
// it, and where that is known from.
type Break struct {
	Class  string `json:"class"`
	Who    string `json:"breaks"`
	Source string `json:"source"`
}

func (b Break) String() string { return "closing " + b.Class + " is known to break: " + b.Who }

// Breaks lists whom the policy is known to break, by the classes that it closes.
func (p *Plan) Breaks() []Break {
	var all []Break
	for _, c := range policy.Classes() {
		if c.Breaks != "" && p.ClosesClass(c) {
			all = append(all, Break{c.String(), c.Breaks, c.Source})
		}
	}
	return all
}

// ClosesClass reports whether the plan closes the whole of a known class, or a
// part of it.
func (p *Plan) ClosesClass(c policy.Class) bool {
	switch {
	case c.Socket != nil:
		of := c.Socket.Class()
		return slices.ContainsFunc(p.ClosedSockets(), func(s afalg.Sockets) bool { return s.Covers(of) || of.Covers(s) })
	case c.SocketOption != nil:
		return slices.Contains(p.ClosedOptions(), c.SocketOption.Numbers())
	}
	return c.UserNamespaces && p.UserNamespaces
}
