package harden

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// bound narrows permissions to the ints of an argument. The kernel reads the
// lower half of a register, and libseccomp compares all of it: a denial by EQ is
// for the number alone, and what the kernel takes for the same number must not be
// permitted beside it.
//
// libseccomp asks for equality before it asks for a range on the same argument.
// So such a denial is found before a permission that is bounded by LT, and no
// mask is needed, which runtimes read differently.
type bound struct {
	index uint
	// denied reports whether a denial that compares nothing else is for a value.
	denied func(uint64) bool
	// answered reports whether the base has a rule of its own for a value, where a
	// permission of all others applies: it need not leave the value out then.
	answered func(profile.Rule, uint64) bool
	// values are those of a permission with a comparison that no bound replaces;
	// none: there is no such list, and it is refused. beyond are the others.
	values []uint64
	beyond []cbpf.Constraint
}

// intLimit is above every int that a call takes: it is -1.
const intLimit = lowWord

func (b bound) compare(op specs.LinuxSeccompOperator, v uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: b.index, Op: op, Value: v}
}

// narrow bounds a permission. It may become several, or none. listed says that
// it keeps only the values of the list.
func (b bound) narrow(r profile.Rule) (rules []profile.Rule, listed bool, err error) {
	compared, rest := b.compare(specs.OpGreaterEqual, 0), []specs.LinuxSeccompArg{}
	for _, a := range r.Args {
		if a.Index == b.index {
			compared = a
		} else {
			rest = append(rest, a)
		}
	}
	with := func(a specs.LinuxSeccompArg) profile.Rule {
		one := r
		one.Args = append(slices.Clone(rest), a)
		return one
	}
	switch v := compared.Value; {
	case compared.Op == specs.OpGreaterEqual && v == 0, compared.Op == specs.OpNotEqual && b.answered(r, v):
		return []profile.Rule{with(b.compare(specs.OpLessThan, intLimit))}, false, nil
	case compared.Op == specs.OpLessThan && v <= intLimit, compared.Op == specs.OpLessEqual && v < intLimit:
		return []profile.Rule{r}, false, nil
	case compared.Op == specs.OpEqualTo && (v > intLimit || b.denied(v)):
		return nil, false, nil
	case compared.Op == specs.OpEqualTo:
		return []profile.Rule{r}, false, nil
	case b.values == nil:
		return nil, false, fmt.Errorf("a rule for %s compares argument %d already (%s %d), and one rule compares an argument once: what the policy denies cannot be taken out; list the values with SCMP_CMP_EQ",
			r.Names[0], b.index, compared.Op, v)
	}
	for _, v := range b.values {
		holds, err := matches(compared, v)
		if err != nil {
			return nil, true, err
		}
		if holds && !b.denied(v) {
			rules = append(rules, with(b.compare(specs.OpEqualTo, v)))
		}
	}
	return rules, true, nil
}

// narrowed bounds a permission in several arguments, and lists the inputs, within
// a part of the call's, that it leaves out besides what is denied.
func narrowed(r profile.Rule, bounds []bound, within cbpf.Region) (rules []profile.Rule, lost []cbpf.Region, err error) {
	rules = []profile.Rule{r}
	for _, b := range bounds {
		var next []profile.Rule
		for _, one := range rules {
			parts, listed, err := b.narrow(one)
			if err != nil {
				return nil, nil, err
			}
			next = append(next, parts...)
			if !listed {
				continue
			}
			for _, c := range b.beyond {
				lost = append(lost, within.With(cbpf.ArgLow(int(b.index)), c))
			}
		}
		rules = next
		lost = append(lost,
			within.With(cbpf.ArgHigh(int(b.index)), cbpf.Not(0)),
			within.With(cbpf.ArgLow(int(b.index)), cbpf.Exactly(intLimit)))
	}
	return rules, lost, nil
}
