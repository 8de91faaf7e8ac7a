package harden

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// listenerFlags is the lowest flag of seccomp(2) that serves a listener:
// NEW_LISTENER is 8; TSYNC_ESRCH (16) and WAIT_KILLABLE_RECV (32) go with it.
// TSYNC, LOG and SPEC_ALLOW lie below. "Below 8" is right for every bit pattern
// without a mask: the kernel takes an unsigned int, and where a filter compares
// 64 bits, high bits are refused as well.
const listenerFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER

const (
	callSeccomp = "seccomp"
	callGetfd   = "pidfd_getfd"

	gapListener = "seccomp-listener"
)

// listenerRules keep the workload from putting a listener of its own in the
// place of ours. The kernel refuses a second one, with EBUSY, only while the
// first is open: of one that has closed, or that nobody ever had (crun exec),
// it knows nothing any more, and of equal actions the newest filter's counts.
func (h *hardener) listenerRules(base []profile.Rule) ([]profile.Rule, error) {
	const why = "afalg-policy: what is left to our listener must not be left to another one"
	if isPermissive(h.base.DefaultAction) {
		if err := h.onePermission(callSeccomp, base); err != nil {
			return nil, err
		}
		rules := denials(base)
		if refusesAll(rules) {
			return rules, nil
		}
		h.closesListeners()
		return append(rules, h.deny(why, callSeccomp, uint(unix.EBUSY), flags(specs.OpGreaterEqual, listenerFlags))...), nil
	}
	var rules []profile.Rule
	for _, r := range base {
		if !isPermissive(r.Action) {
			rules = append(rules, r)
			continue
		}
		parts, rest, err := withoutListener(r)
		if err != nil {
			return nil, err
		}
		h.closesListeners()
		denied := h.deny(why, callSeccomp, uint(unix.EBUSY), append(slices.Clone(rest), flags(specs.OpGreaterEqual, listenerFlags))...)
		rules = slices.Concat(rules, parts, where(r, denied))
	}
	return rules, nil
}

func (h *hardener) closesListeners() {
	if h.change.seccomp {
		return
	}
	h.change.seccomp = true
	h.change.depart(gapListener, callSeccomp, atLeast(1, listenerFlags)...)
}

func flags(op specs.LinuxSeccompOperator, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 1, Op: op, Value: value}
}

// withoutListener narrows a permission to flags below NEW_LISTENER: as a range
// if it has them all, and one by one if it compares the flags already. rest are
// its other comparisons.
func withoutListener(r profile.Rule) (parts []profile.Rule, rest []specs.LinuxSeccompArg, err error) {
	compared := flags(specs.OpGreaterEqual, 0)
	for _, a := range r.Args {
		if a.Index == compared.Index {
			compared = a
		} else {
			rest = append(rest, a)
		}
	}
	var values []uint64
	for v := range uint64(listenerFlags) {
		holds, err := matches(compared, v)
		if err != nil {
			return nil, nil, err
		}
		if holds {
			values = append(values, v)
		}
	}
	narrowed := func(a specs.LinuxSeccompArg) profile.Rule {
		one := r
		one.Args = append(slices.Clone(rest), a)
		return one
	}
	if len(values) == listenerFlags {
		return []profile.Rule{narrowed(flags(specs.OpLessThan, listenerFlags))}, rest, nil
	}
	for _, v := range values {
		parts = append(parts, narrowed(flags(specs.OpEqualTo, v)))
	}
	return parts, rest, nil
}

// getfdRules close pidfd_getfd. Where Yama does not restrict ptrace it takes
// any descriptor of another process of the same user: also an AF_ALG socket
// that was made outside of the filter.
func (h *hardener) getfdRules(base []profile.Rule) ([]profile.Rule, error) {
	if isPermissive(h.base.DefaultAction) {
		if refusesAll(denials(base)) {
			return denials(base), nil
		}
		base = []profile.Rule{{Action: h.base.DefaultAction}}
	}
	var rules []profile.Rule
	for _, r := range base {
		if !isPermissive(r.Action) {
			rules = append(rules, r)
			continue
		}
		if !h.change.getfd {
			h.change.getfd = true
			h.change.depart(callGetfd, callGetfd)
		}
		rules = append(rules, where(r, h.denyGetfd())...)
	}
	return rules, nil
}

func (h *hardener) denyGetfd() []profile.Rule {
	errno := uint(unix.EPERM)
	if h.isDefault(errno) {
		// Without a rule the call would leave libseccomp's tree, where each takes
		// others with it: some then cost more than in the base.
		errno = uint(unix.ENOSYS)
	}
	return h.deny("afalg-policy: pidfd_getfd takes the sockets of processes that no filter is over", callGetfd, errno)
}

// where has rules apply on the hosts where another one does.
func where(r profile.Rule, rules []profile.Rule) []profile.Rule {
	for i := range rules {
		rules[i].Includes, rules[i].Excludes = r.Includes, r.Excludes
	}
	return rules
}
