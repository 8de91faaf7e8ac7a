package harden

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// reopenClasses takes back what an earlier hardening denied of classes that the
// workload may have, as in the default profile of a platform: a grant would be
// worth nothing under that. Only rules that are ours word by word are taken for
// it. clone3 stays as it is: Docker's own default answers it as ours does, and
// would open every namespace with it.
func (c closing) reopenClasses(base *profile.Profile, opened plan.Opened) *profile.Profile {
	h := hardener{closing: c, base: base}
	var ours []profile.Rule
	reopened := map[uint32]bool{}
	for _, name := range []string{"socket", "socketpair"} {
		for _, s := range opened.Sockets {
			denied := h.denialsOf(name, s)
			ours = append(ours, denied...)
			reopened[s.Family] = reopened[s.Family] || s.Whole() && len(denied) > 0
		}
	}
	h.options = opened.Options
	ours = append(ours, h.optionDenials()...)
	if opened.UserNamespaces {
		ours = append(ours, h.denyNewUser("clone")...)
		ours = append(ours, h.denyNewUser("unshare")...)
	}
	if len(ours) == 0 {
		return base
	}
	out := *base
	out.Syscalls = nil
	for _, r := range base.Syscalls {
		if !slices.ContainsFunc(ours, func(o profile.Rule) bool { return sameOnSomeHost(o, r) }) {
			out.Syscalls = append(out.Syscalls, r)
			continue
		}
		if len(r.Args) == 1 && reopened[uint32(r.Args[0].Value)] && !isPermissive(base.DefaultAction) && isSocketCall(r) {
			out.Syscalls = append(out.Syscalls, profile.Rule{
				Names: r.Names, Action: specs.ActAllow, Args: r.Args, Includes: r.Includes, Excludes: r.Excludes,
			})
		}
	}
	return &out
}

func isSocketCall(r profile.Rule) bool { return r.Names[0] == "socket" || r.Names[0] == "socketpair" }

// denialsOf are the rules by which hardening closes a class to a call.
func (h *hardener) denialsOf(name string, s afalg.Sockets) []profile.Rule {
	allows := isPermissive(h.base.DefaultAction)
	switch {
	case allows && s.Whole():
		return h.deny("", name, h.errno, lowEquals(uint64(s.Family)))
	case allows:
		return h.subtractSockets(name, s)
	case s.Whole():
		return h.deny("", name, h.errno, equals(uint64(s.Family)))
	}
	return h.denySockets(name, s)
}

// sameOnSomeHost reports whether a rule is another one, perhaps resolved for a
// host. Comments do not count.
func sameOnSomeHost(ours, r profile.Rule) bool {
	if r.Includes == nil && r.Excludes == nil {
		ours.Includes, ours.Excludes = nil, nil
	}
	return sameDenial(ours, r)
}
