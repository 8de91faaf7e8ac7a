package harden

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

const callSetsockopt = "setsockopt"

// Arguments of setsockopt.
const (
	argLevel  = 1
	argOption = 2
)

// optionRules are the rules of setsockopt in a profile without a broker.
func (h *hardener) optionRules(touched map[string][]profile.Rule) ([]profile.Rule, error) {
	if h.broker || len(h.options) == 0 {
		return nil, nil
	}
	base := touched[callSetsockopt]
	if isPermissive(h.base.DefaultAction) {
		if err := h.onePermission(callSetsockopt, base); err != nil {
			return nil, err
		}
		base = denials(base)
	}
	return h.closeOptions(base)
}

// closeOptions denies socket options beside the rules of setsockopt, which may
// have the broker's part among them. The answer is that of a kernel that does not
// have the option.
func (h *hardener) closeOptions(base []profile.Rule) ([]profile.Rule, error) {
	if len(h.options) == 0 {
		return base, nil
	}
	base = h.effective(base)
	if refusesAll(base) {
		return base, nil
	}
	if slices.ContainsFunc(h.options, func(o afalg.SocketOption) bool { return o.Level == unix.SOL_ALG }) {
		base = h.belowNotified(base)
	}
	allows := isPermissive(h.base.DefaultAction)
	if !allows && len(permissive(base)) == 0 {
		return base, nil
	}
	h.declareOptions()
	rules := h.optionDenials()
	if allows {
		return append(base, rules...), nil
	}
	ours, bounds := rules, h.optionBounds(base)
	for _, r := range base {
		if r.Action == specs.ActNotify || !isPermissive(r.Action) {
			if !denies(ours, r) {
				rules = append(rules, r)
			}
			continue
		}
		parts, lost, err := narrowed(r, bounds, cbpf.Everything)
		if err != nil {
			return nil, err
		}
		rules = append(rules, parts...)
		h.loses(callSetsockopt, lost...)
	}
	return rules, nil
}

// optionBounds bound level and option. The broker's level is answered by its
// notification.
func (h *hardener) optionBounds(base []profile.Rule) []bound {
	never := func(uint64) bool { return false }
	answered := func(one profile.Rule, v uint64) bool {
		return slices.ContainsFunc(base, func(r profile.Rule) bool {
			return slices.Contains(r.Args, specs.LinuxSeccompArg{Index: argLevel, Op: specs.OpEqualTo, Value: v}) && r.Action == specs.ActNotify && sameScope(r, one)
		})
	}
	return []bound{{index: argLevel, denied: never, answered: answered}, {index: argOption, denied: never, answered: func(profile.Rule, uint64) bool { return false }}}
}

// belowNotified makes notifications narrower than a level, so that an option of
// the level can be denied.
func (h *hardener) belowNotified(base []profile.Rule) []profile.Rule {
	ints := always(argOption)
	if !isPermissive(h.base.DefaultAction) {
		ints = specs.LinuxSeccompArg{Index: argOption, Op: specs.OpLessThan, Value: intLimit}
	}
	out := slices.Clone(base)
	for i, r := range out {
		if r.Action == specs.ActNotify && !slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index == argOption }) {
			out[i].Args = append(slices.Clone(r.Args), ints)
		}
	}
	return out
}

// optionDenials are the rules that deny the options.
func (h *hardener) optionDenials() []profile.Rule {
	compare := func(index uint, v uint32) specs.LinuxSeccompArg {
		if isPermissive(h.base.DefaultAction) {
			return specs.LinuxSeccompArg{Index: index, Op: specs.OpMaskedEqual, Value: lowWord, ValueTwo: uint64(v)}
		}
		return specs.LinuxSeccompArg{Index: index, Op: specs.OpEqualTo, Value: uint64(v)}
	}
	var rules []profile.Rule
	for _, o := range h.options {
		for _, level := range levelsOf(o) {
			rules = append(rules, h.refuse("afalg-policy: "+o.String()+" is closed", callSetsockopt, uint(unix.ENOPROTOOPT),
				compare(argLevel, level), compare(argOption, o.Option))...)
		}
	}
	return rules
}

func (h *hardener) declareOptions() {
	for _, o := range h.options {
		for _, level := range levelsOf(o) {
			h.change.depart("", callSetsockopt, argument(argLevel, level).With(cbpf.ArgLow(argOption), cbpf.Exactly(o.Option)))
		}
	}
}

// levelsOf lists the numbers of an option's level: SOL_SOCKET has another one on
// MIPS.
func levelsOf(o afalg.SocketOption) []uint32 {
	if o.Level == unix.SOL_SOCKET {
		return []uint32{o.Level, afalg.MIPSSolSocket}
	}
	return []uint32{o.Level}
}
