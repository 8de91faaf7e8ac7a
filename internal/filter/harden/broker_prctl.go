package harden

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// prctlLimit is above the options of prctl(2) that are counted up (79 in Linux
// 7.1); prctlMagic are those that are not (linux/prctl.h).
const prctlLimit = 96

var prctlMagic = []uint64{unix.PR_GET_AUXV, unix.PR_SET_VMA, unix.PR_SET_PTRACER}

const gapPrctl = "prctl-set-mm"

// prctlRules deny PR_SET_MM, by which a process forges its /proc/PID/exe.
func (h *hardener) prctlRules(base []profile.Rule) ([]profile.Rule, error) {
	const why = "afalg-policy: PR_SET_MM changes what /proc/PID/exe shows"
	if isPermissive(h.base.DefaultAction) {
		if err := h.onePermission("prctl", base); err != nil {
			return nil, err
		}
		h.change.prctl = true
		h.change.depart(gapPrctl, "prctl", argument(0, unix.PR_SET_MM))
		rules := slices.DeleteFunc(denials(base), func(r profile.Rule) bool { return comparesOnly(r, []uint32{unix.PR_SET_MM}) })
		return append(rules, h.deny(why, "prctl", uint(unix.EPERM), lowEquals(unix.PR_SET_MM))...), nil
	}
	rules, err := prctlWithoutSetMM(base, true)
	if err == nil && areTangled(rules) {
		rules, err = prctlWithoutSetMM(base, false)
	}
	if len(permissive(base)) > 0 {
		h.change.prctl = true
		h.change.depart(gapPrctl, "prctl", lostOptions()...)
		rules = append(rules, h.deny(why, "prctl", uint(unix.EPERM), equals(unix.PR_SET_MM))...)
	}
	return rules, err
}

// lostOptions are the calls of prctl that the base may permit and the result
// does not.
func lostOptions() []cbpf.Region {
	parts := []cbpf.Region{argument(0, unix.PR_SET_MM), cbpf.Everything.With(cbpf.ArgHigh(0), cbpf.Not(0))}
	next := uint32(prctlLimit)
	for _, v := range slices.Sorted(slices.Values(prctlMagic)) {
		parts = append(parts, cbpf.Everything.With(cbpf.ArgLow(0), cbpf.Between(next, uint32(v)-1)))
		next = uint32(v) + 1
	}
	return append(parts, cbpf.Everything.With(cbpf.ArgLow(0), cbpf.Between(next, math.MaxUint32)))
}

func prctlWithoutSetMM(base []profile.Rule, ranges bool) ([]profile.Rule, error) {
	var rules []profile.Rule
	for _, r := range base {
		if !isPermissive(r.Action) {
			if !comparesOnly(r, []uint32{unix.PR_SET_MM}) {
				rules = append(rules, r)
			}
			continue
		}
		parts, err := withoutSetMM(r, ranges)
		if err != nil {
			return nil, err
		}
		rules = append(rules, parts...)
	}
	return rules, nil
}

// withoutSetMM lists the options that a permission is for. "Not PR_SET_MM" would
// be one rule, and let PR_SET_MM with high bits through: the kernel takes an
// int, and libseccomp compares 64 bits.
func withoutSetMM(r profile.Rule, ranges bool) ([]profile.Rule, error) {
	option, rest := always(0), []specs.LinuxSeccompArg{}
	for _, a := range r.Args {
		if a.Index == 0 {
			option = a
		} else {
			rest = append(rest, a)
		}
	}
	var permitted []uint64
	below := 0
	for _, v := range prctlOptions() {
		holds, err := matches(option, v)
		if err != nil {
			return nil, err
		}
		if holds {
			permitted = append(permitted, v)
		}
		if holds && v < unix.PR_SET_MM {
			below++
		}
	}
	var rules []profile.Rule
	add := func(op specs.LinuxSeccompOperator, v uint64) {
		one := r
		one.Args = append([]specs.LinuxSeccompArg{{Index: 0, Op: op, Value: v}}, rest...)
		rules = append(rules, one)
	}
	if ranges && below == unix.PR_SET_MM {
		add(specs.OpLessThan, unix.PR_SET_MM)
		permitted = permitted[below:]
	}
	for _, v := range permitted {
		add(specs.OpEqualTo, v)
	}
	return rules, nil
}

// prctlOptions lists the options but PR_SET_MM, sorted.
func prctlOptions() []uint64 {
	var options []uint64
	for v := range uint64(prctlLimit) {
		if v != unix.PR_SET_MM {
			options = append(options, v)
		}
	}
	return append(options, prctlMagic...)
}
