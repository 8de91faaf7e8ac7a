package harden

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// tangle finds rules that libseccomp never finishes adding (to 2.6.1). It
// compares 64 bits in halves, so that what follows a range hangs below two
// nodes. A rule that shares the range and sorts before what hangs there
// already is put in front of it twice, and follows itself then.
type tangle map[string]*followers

// followers are the comparisons that come after the same range.
type followers struct {
	lowest uint // of their arguments
	ranges []specs.LinuxSeccompArg
}

// add takes the comparisons of the next rule of a call, and returns the range
// that they share with an earlier one if the two are tangled.
func (t tangle) add(args []specs.LinuxSeccompArg) (shared specs.LinuxSeccompArg, tangled bool) {
	args = slices.Clone(args)
	slices.SortStableFunc(args, func(a, b specs.LinuxSeccompArg) int { return int(a.Index) - int(b.Index) })
	for i := range len(args) - 1 {
		if !isRange(args[i].Op) && args[i].Op != specs.OpNotEqual {
			continue
		}
		key, next := fmt.Sprint(args[:i+1]), args[i+1]
		known := t[key]
		if known == nil {
			known = &followers{lowest: next.Index}
			t[key] = known
		}
		if known.before(next) {
			return args[i], true
		}
		known.lowest = min(known.lowest, next.Index)
		if isRange(next.Op) && !slices.Contains(known.ranges, next) {
			known.ranges = append(known.ranges, next)
		}
	}
	return shared, false
}

// before reports whether libseccomp puts a comparison in front of one that it
// knows: it asks for the last argument first, and for ranges last.
func (f *followers) before(next specs.LinuxSeccompArg) bool {
	return next.Index > f.lowest || slices.ContainsFunc(f.ranges, func(known specs.LinuxSeccompArg) bool {
		return known.Index == next.Index && known != next
	})
}

func isRange(op specs.LinuxSeccompOperator) bool {
	switch op {
	case specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
		return true
	}
	return false
}

// areTangled reports whether libseccomp would never finish adding the rules,
// which are of one call and have one set of comparisons each.
func areTangled(rules []profile.Rule) bool {
	t := tangle{}
	return slices.ContainsFunc(rules, func(r profile.Rule) bool {
		_, tangled := t.add(r.Args)
		return tangled
	})
}

// checkTangles refuses a profile that libseccomp would never finish compiling.
func checkTangles(p *specs.LinuxSeccomp) error {
	calls := map[string]tangle{}
	for i, r := range p.Syscalls {
		if len(r.Args) < 2 {
			continue
		}
		for _, name := range r.Names {
			if calls[name] == nil {
				calls[name] = tangle{}
			}
			for _, args := range alternatives(r.Args) {
				if shared, tangled := calls[name].add(args); tangled {
					return fmt.Errorf("syscalls[%d] (%s): an earlier rule compares argument %d alike (%s %d) and another argument after it; libseccomp %s never finishes compiling the two: put the rule with the later argument first, or list the values with SCMP_CMP_EQ",
						i, name, shared.Index, shared.Op, shared.Value, seccomp.Version())
				}
			}
		}
	}
	return nil
}
