package harden

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// namespaceCalls make user namespaces. setns only joins one that is there.
var namespaceCalls = []string{"clone", "unshare", "clone3"}

const whyNamespaces = "afalg-policy: user namespaces are closed"

// s390 takes the flags of clone in the second argument (CLONE_BACKWARDS2).
var s390 = &profile.Condition{Arches: []string{"s390", "s390x"}}

// denyNewUser denies CLONE_NEWUSER in the argument that has the flags.
func (h *hardener) denyNewUser(name string) []profile.Rule {
	first := h.refuse(whyNamespaces, name, uint(unix.EINVAL), newUser(0))
	if name != "clone" {
		return first
	}
	second := h.refuse(whyNamespaces, name, uint(unix.EINVAL), newUser(1))
	return append(where(profile.Rule{Excludes: s390}, first), where(profile.Rule{Includes: s390}, second)...)
}

// namespaceRules keep everybody from making a user namespace, as a kernel
// without them does.
func (h *hardener) namespaceRules(touched map[string][]profile.Rule) ([]profile.Rule, error) {
	if !h.userNamespaces {
		return nil, nil
	}
	var rules []profile.Rule
	for _, name := range []string{"clone", "unshare"} {
		r, err := h.flagRules(name, touched[name])
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	return append(rules, h.clone3Rules(touched["clone3"])...), nil
}

// flagRules deny CLONE_NEWUSER. The mask is the value, so that it does not matter
// which of the two a runtime takes for the mask.
func (h *hardener) flagRules(name string, base []profile.Rule) ([]profile.Rule, error) {
	base = h.effective(base)
	denied := h.denyNewUser(name)
	if isPermissive(h.base.DefaultAction) {
		if err := h.onePermission(name, base); err != nil {
			return nil, err
		}
		base = denials(base)
		if refusesAll(base) {
			return base, nil
		}
		h.declareNamespaces(name)
		return append(denied, base...), nil
	}
	if len(permissive(base)) == 0 {
		return base, nil
	}
	h.declareNamespaces(name)
	for _, r := range base {
		if isPermissive(r.Action) {
			left, some := withoutNewUser(r)
			if !some {
				continue
			}
			r = left
		}
		denied = append(denied, r)
	}
	return denied, nil
}

func (h *hardener) declareNamespaces(name string) {
	h.change.departures = append(h.change.departures, departure{call: name, newUser: true})
}

func newUser(arg uint) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Op: specs.OpMaskedEqual, Value: unix.CLONE_NEWUSER, ValueTwo: unix.CLONE_NEWUSER}
}

// withoutNewUser narrows a permission, so that it does not hold for CLONE_NEWUSER
// or is asked for after its denial: libseccomp asks for ranges last. It returns
// false if nothing is left.
func withoutNewUser(r profile.Rule) (profile.Rule, bool) {
	at := uint(0)
	if r.Includes != nil && len(r.Includes.Arches) > 0 && !slices.ContainsFunc(r.Includes.Arches, notS390) {
		at = 1
	}
	i := slices.IndexFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index == at })
	args := slices.Clone(r.Args)
	if i < 0 {
		if !slices.ContainsFunc(args, func(a specs.LinuxSeccompArg) bool { return a.Index == 0 }) {
			args = append(args, always(0))
		}
		r.Args = args
		return r, true
	}
	switch a := &args[i]; {
	case a.Op == specs.OpEqualTo && a.Value&unix.CLONE_NEWUSER != 0,
		a.Op == specs.OpMaskedEqual && a.Value&a.ValueTwo&unix.CLONE_NEWUSER != 0:
		return r, false
	case a.Op == specs.OpMaskedEqual:
		a.Value |= unix.CLONE_NEWUSER
	}
	r.Args = args
	return r, true
}

func notS390(arch string) bool { return !slices.Contains(s390.Arches, arch) }

// clone3Rules close a call whose flags are behind a pointer. C libraries take
// clone if it is not there.
func (h *hardener) clone3Rules(base []profile.Rule) []profile.Rule {
	const name = "clone3"
	if !isPermissive(h.base.DefaultAction) {
		if len(permissive(base)) == 0 {
			return base
		}
		h.change.depart("", name)
		return h.deny(whyNamespaces, name, uint(unix.ENOSYS))
	}
	if refusesAll(denials(base)) {
		return denials(base)
	}
	h.change.depart("", name)
	return h.deny(whyNamespaces, name, uint(unix.ENOSYS), always(0), always(1))
}
