package verify

import (
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// regionsOf returns the inputs that meet the comparisons of a rule as the
// runtimes take them, as a union: libseccomp compares 64 bits, a region halves.
func regionsOf(args []specs.LinuxSeccompArg) []cbpf.Region {
	if _, second := repeated(args); second > 0 {
		var union []cbpf.Region
		for _, a := range args {
			union = append(union, compared(a, cbpf.Everything)...)
		}
		return union
	}
	regions := []cbpf.Region{cbpf.Everything}
	for _, a := range args {
		var next []cbpf.Region
		for _, r := range regions {
			next = append(next, compared(a, r)...)
		}
		regions = next
	}
	return regions
}

// repeated finds the first two comparisons of one argument. second is 0 if no
// index appears twice.
func repeated(args []specs.LinuxSeccompArg) (first, second int) {
	seen := map[uint]int{}
	for i, a := range args {
		if at, ok := seen[a.Index]; ok {
			return at, i
		}
		seen[a.Index] = i
	}
	return 0, 0
}

// compared returns the part of a region that meets one comparison.
func compared(a specs.LinuxSeccompArg, r cbpf.Region) (union []cbpf.Region) {
	i := int(a.Index)
	if i >= 6 {
		return nil
	}
	high, low := uint32(a.Value>>32), uint32(a.Value)
	add := func(h, l cbpf.Constraint) {
		union = append(union, r.With(cbpf.ArgHigh(i), h).With(cbpf.ArgLow(i), l))
	}
	var any cbpf.Constraint
	below := func() {
		if high > 0 {
			add(cbpf.Between(0, high-1), any)
		}
		if low > 0 {
			add(cbpf.Exactly(high), cbpf.Between(0, low-1))
		}
	}
	above := func() {
		if high < math.MaxUint32 {
			add(cbpf.Between(high+1, math.MaxUint32), any)
		}
		if low < math.MaxUint32 {
			add(cbpf.Exactly(high), cbpf.Between(low+1, math.MaxUint32))
		}
	}
	equal := func() { add(cbpf.Exactly(high), cbpf.Exactly(low)) }
	switch a.Op {
	case specs.OpEqualTo:
		equal()
	case specs.OpNotEqual:
		below()
		above()
	case specs.OpLessThan:
		below()
	case specs.OpLessEqual:
		below()
		equal()
	case specs.OpGreaterThan:
		above()
	case specs.OpGreaterEqual:
		above()
		equal()
	case specs.OpMaskedEqual:
		datum := a.ValueTwo & a.Value
		add(cbpf.Masked(high, uint32(datum>>32)), cbpf.Masked(low, uint32(datum)))
	}
	return union
}
