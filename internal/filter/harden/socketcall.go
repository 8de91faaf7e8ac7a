package harden

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// Socketcall says what becomes of the 32-bit multiplexer, whose family is
// behind a pointer that seccomp cannot follow.
type Socketcall string

const (
	SocketcallDeny Socketcall = "deny"
	SocketcallKeep Socketcall = "keep"
	// SocketcallBroker leaves the calls on sockets to the broker, which reads
	// behind the pointer.
	SocketcallBroker Socketcall = "broker"
)

// socketcallMade are the numbers of socketcall(2) by which sockets are made, by
// the call that they stand for.
var socketcallMade = func() map[uint64]string {
	m := map[uint64]string{}
	for _, c := range afalg.BrokeredCalls() {
		if c.Makes {
			m[c.Socketcall] = c.Name
		}
	}
	return m
}()

// socketcallFamilies are those that reach a family, sorted.
var socketcallFamilies = slices.Sorted(maps.Keys(socketcallMade))

// socketcallSetsockopt is the number by which options are set, behind the pointer.
const socketcallSetsockopt = 14

// closedSocketcalls are the numbers that reach what is closed, sorted.
func (c closing) closedSocketcalls() []uint64 {
	calls := slices.Clone(socketcallFamilies)
	if len(c.options) > 0 {
		calls = append(calls, socketcallSetsockopt)
	}
	slices.Sort(calls)
	return calls
}

// socketcallBrokered are the numbers that the broker answers, sorted.
var socketcallBrokered = func() (all []uint64) {
	for _, c := range afalg.BrokeredCalls() {
		all = append(all, c.Socketcall)
	}
	slices.Sort(all)
	return all
}()

// socketcallLimit is one above the last number of socketcall, SYS_SENDMMSG.
const socketcallLimit = 21

// multiplexed are the calls for which libseccomp adds a companion, a rule for
// socketcall with the number of the call in the place of argument 0.
var multiplexed = []string{
	"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
	"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
}

const whySocketcall = "afalg-policy: the family is behind a pointer, which seccomp cannot read"

// GapSocketcall is the name of the gap that SocketcallKeep leaves.
const GapSocketcall = string(afalg.RouteCompatSocketcall)

func checkSocketcall(s Socketcall, broker bool) error {
	switch s {
	case "", SocketcallDeny, SocketcallKeep:
		return nil
	case SocketcallBroker:
		if broker {
			return nil
		}
		return fmt.Errorf("socketcall is left to the broker, and there is none")
	}
	return fmt.Errorf("unknown treatment of socketcall %q", s)
}

// socketcallRules must come first: what libseccomp adds for socketcall by
// itself is swallowed by a wider rule that it knows already, and contradicts a
// narrower one.
func (h *hardener) socketcallRules(touched map[string][]profile.Rule) ([]profile.Rule, error) {
	base := touched["socketcall"]
	switch {
	case h.broker:
		return h.brokeredSocketcall(base, touched)
	case isPermissive(h.base.DefaultAction):
		return h.subtractSocketcall(base), nil
	}
	permitted := permissive(base)
	h.change.socketcall = len(permitted) > 0 || h.hasCompanions() || h.granted
	switch {
	case !h.change.socketcall:
		return base, nil
	case h.socketcall == SocketcallKeep && len(permitted) > 0:
		return h.keepSocketcall(base, permitted), nil
	}
	return h.denySocketcall(), nil
}

// hasCompanions reports whether libseccomp lets calls of socketcall through
// without a rule of the base for it.
func (h *hardener) hasCompanions() bool {
	return slices.ContainsFunc(h.base.Syscalls, func(r profile.Rule) bool {
		return isPermissive(r.Action) && slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(multiplexed, n) })
	})
}

// subtractSocketcall closes single calls in a profile that allows by default.
func (h *hardener) subtractSocketcall(base []profile.Rule) []profile.Rule {
	h.change.socketcall = true
	var ours []profile.Rule
	for _, call := range h.closedSocketcalls() {
		h.change.depart(GapSocketcall, "socketcall", argument(0, uint32(call)))
		if h.apart {
			ours = append(ours, h.deny(whySocketcall, "socketcall", h.errno, equals(call))...)
		}
		// Sockets by socketcall are refused, kept or not: libseccomp does that with
		// those of native programs. Options of sockets from elsewhere are not.
		if h.socketcall != SocketcallKeep || call == socketcallSetsockopt {
			ours = append(ours, h.deny(whySocketcall, "socketcall", h.errno, lowEquals(call))...)
		}
	}
	if h.apart {
		return unitedDenials(ours, denials(base))
	}
	if len(ours) == 0 {
		return base
	}
	hardenedBefore := func(r profile.Rule) bool {
		return slices.ContainsFunc(ours, func(o profile.Rule) bool { return sameDenial(r, o) })
	}
	return append(slices.DeleteFunc(denials(base), hardenedBefore), ours...)
}

// unitedDenials puts our denials first. Where the base denies the same calls,
// its own denial takes the place of ours.
func unitedDenials(ours, base []profile.Rule) []profile.Rule {
	same := func(r profile.Rule) func(profile.Rule) bool {
		return func(o profile.Rule) bool { return reflect.DeepEqual(r.Args, o.Args) }
	}
	for i, r := range ours {
		if j := slices.IndexFunc(base, same(r)); j >= 0 && everywhere(base[j]) {
			ours[i] = base[j]
		}
		base = slices.DeleteFunc(base, same(r))
	}
	return append(ours, base...)
}

// sameDenial reports whether two rules of one call say the same, whatever
// their comments are.
func sameDenial(a, b profile.Rule) bool {
	a.Comment, b.Comment = "", ""
	return reflect.DeepEqual(a, b)
}

// denySocketcall refuses the whole of socketcall, or with apart the calls that
// a companion would open.
func (h *hardener) denySocketcall() []profile.Rule {
	h.change.depart(GapSocketcall, "socketcall")
	if !h.apart || isPermissive(h.base.DefaultAction) {
		return h.refuseSocketcall()
	}
	calls := h.closedSocketcalls()
	if h.broker {
		calls = socketcallBrokered
	}
	var rules []profile.Rule
	for _, call := range calls {
		rules = append(rules, h.refuseSocketcall(equals(call))...)
	}
	return rules
}

// refuseSocketcall is a denial that the runtimes do not drop: libseccomp's own
// rule would open the call.
func (h *hardener) refuseSocketcall(args ...specs.LinuxSeccompArg) []profile.Rule {
	return h.refuse(whySocketcall, "socketcall", h.errno, args...)
}

// reopenSocketcall takes back what an earlier hardening did to socketcall, as in
// the default profile of a platform: what was denied there is left to the
// broker. A base in which somebody else has a say about socketcall stays.
func (c closing) reopenSocketcall(base *profile.Profile) *profile.Profile {
	h := hardener{closing: c, base: base}
	refusal := h.refuseSocketcall()
	if isPermissive(base.DefaultAction) || len(refusal) == 0 {
		return base
	}
	out := *base
	out.Syscalls = []profile.Rule{{Names: []string{"socketcall"}, Action: specs.ActAllow}}
	reopened := false
	for _, r := range base.Syscalls {
		ours := r
		ours.Args = nil // of single calls, where they are kept apart
		switch {
		case !slices.Contains(r.Names, "socketcall"):
			out.Syscalls = append(out.Syscalls, r)
		case sameDenial(ours, refusal[0]):
			reopened = true
		default:
			return base
		}
	}
	if !reopened {
		return base
	}
	return &out
}

// keepSocketcall leaves socketcall as the base has it.
func (h *hardener) keepSocketcall(base, permitted []profile.Rule) []profile.Rule {
	if !h.apart {
		return base
	}
	i := slices.IndexFunc(permitted, func(r profile.Rule) bool { return len(r.Args) == 0 && everywhere(r) })
	if i >= 0 {
		h.change.depart(GapSocketcall, "socketcall", atLeast(0, socketcallLimit)...)
		var rules []profile.Rule
		for call := range uint64(socketcallLimit) {
			r := permitted[i]
			r.Args = []specs.LinuxSeccompArg{equals(call)}
			rules = append(rules, r)
		}
		return append(rules, denials(base)...)
	}
	for _, call := range h.closedSocketcalls() {
		h.change.depart(GapSocketcall, "socketcall", argument(0, uint32(call)))
		named := func(r profile.Rule) bool { return slices.Equal(r.Args, []specs.LinuxSeccompArg{equals(call)}) }
		if !slices.ContainsFunc(base, named) {
			base = append(h.refuseSocketcall(equals(call)), base...)
		}
	}
	return base
}

// anchor makes the rules for socketcall more than those of a call that every
// ABI has, by numbers that no kernel has. libseccomp 2.5.4 to 2.6.1 load the
// number of the call before the call with the fewest comparisons, and where the
// ABI lacks that call they load it nowhere.
func (h *hardener) anchor(socketcall, other []profile.Rule) []profile.Rule {
	if !h.apart || isPermissive(h.base.DefaultAction) || len(socketcall) == 0 {
		return nil
	}
	const nodes = 3 // of libseccomp's tree, for one comparison of 64 bits
	need := 0
	for _, r := range other {
		need += nodes * len(r.Args)
	}
	var rules []profile.Rule
	for call := range uint64(need) {
		rules = append(rules, h.refuseSocketcall(equals(socketcallLimit+call))...)
	}
	return rules
}

// brokeredSocketcall is socketcallRules with a broker. The rules that libseccomp
// adds for socketcall differ from call to call then, and it refuses a profile in
// which they meet, or adds notifications that nobody asked for: a wider rule has
// to come first and swallow them all.
func (h *hardener) brokeredSocketcall(base []profile.Rule, touched map[string][]profile.Rule) ([]profile.Rule, error) {
	allows := isPermissive(h.base.DefaultAction)
	if allows && refusesAll(base) {
		return base, nil
	}
	permitted := permissive(base)
	h.change.socketcall = len(permitted) > 0 || allows
	if h.change.socketcall && !allows && h.socketcall == SocketcallKeep {
		return h.keepSocketcall(base, permitted), nil
	}
	if !h.change.socketcall || h.socketcall != SocketcallBroker {
		return h.denySocketcall(), nil
	}
	var rules []profile.Rule
	for _, call := range socketcallBrokered {
		h.change.depart("", "socketcall", argument(0, uint32(call)))
		switch {
		case call == socketcallSetsockopt && len(h.options) > 0:
			// What the broker reads behind the pointer may change before the kernel
			// reads it, and it lets the kernel go on with options of other sockets.
			h.change.options = true
			rules = append(rules, h.refuseSocketcall(equals(call))...)
			if allows {
				rules = append(rules, h.refuseSocketcall(lowEquals(call))...)
			}
		case !allows:
			rules = append(rules, notify("socketcall", equals(call)))
		case len(denials(touched[socketcallMade[call]])) > 0:
			// The broker would make what the base denies.
			h.change.unmade = true
			rules = append(rules, h.refuseSocketcall(equals(call))...)
			rules = append(rules, h.refuseSocketcall(lowEquals(call))...)
		default:
			rules = append(rules, notify("socketcall", equals(call)), notify("socketcall", lowEquals(call)))
		}
	}
	if allows {
		if err := h.onePermission("socketcall", base); err != nil {
			return nil, err
		}
		return append(rules, denials(base)...), nil
	}
	h.change.depart(GapSocketcall, "socketcall", atLeast(0, socketcallLimit)...)
	kept, err := socketcallRest(permitted)
	return slices.Concat(rules, kept, denials(base)), err
}

// socketcallRest lists the calls that a base permits and the broker does not
// answer.
func socketcallRest(permitted []profile.Rule) ([]profile.Rule, error) {
	var rules []profile.Rule
	for _, r := range permitted {
		if !everywhere(r) || len(r.Args) > 1 || len(r.Args) == 1 && r.Args[0].Index != 0 {
			return nil, fmt.Errorf("the rule for socketcall has conditions besides the number of the call: it cannot be left to the broker; use --socketcall deny")
		}
	}
	for call := range uint64(socketcallLimit) {
		i := slices.IndexFunc(permitted, func(r profile.Rule) bool {
			holds, err := matches(append(slices.Clone(r.Args), always(0))[0], call)
			return err == nil && holds
		})
		switch brokered := slices.Contains(socketcallBrokered, call); {
		case brokered && i < 0:
			return nil, fmt.Errorf("the base lets only some calls of socketcall through, and call %d is not one of them: it cannot be left to the broker; use --socketcall deny", call)
		case !brokered && i >= 0:
			r := permitted[i]
			r.Args = []specs.LinuxSeccompArg{equals(call)}
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// narrower makes the rules that libseccomp adds for socketcall narrower than
// ours for it: only then are they swallowed.
func (h *hardener) narrower(rules []profile.Rule) []profile.Rule {
	if !h.apart && (!h.broker || h.socketcall != SocketcallBroker) {
		return rules
	}
	out := slices.Clone(rules)
	for i, r := range out {
		if !slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index != 0 }) {
			out[i].Args = append(slices.Clone(r.Args), always(1))
		}
	}
	return out
}
