package verify

import (
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// regionsOf returns the inputs that meet the comparisons of a rule as the
// runtimes take them, as a union: libseccomp compares 64 bits, a region knows
// halves.
func regionsOf(args []specs.LinuxSeccompArg) []bpf.Region {
	if _, second := repeated(args); second > 0 {
		var union []bpf.Region
		for _, a := range args {
			union = append(union, compared(a, bpf.Everything)...)
		}
		return union
	}
	regions := []bpf.Region{bpf.Everything}
	for _, a := range args {
		var next []bpf.Region
		for _, r := range regions {
			next = append(next, compared(a, r)...)
		}
		regions = next
	}
	return regions
}

// repeated finds the first two comparisons of one argument. second is 0 if no
// index stands twice.
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
func compared(a specs.LinuxSeccompArg, r bpf.Region) (union []bpf.Region) {
	i := int(a.Index)
	if i >= 6 {
		return nil
	}
	high, low := uint32(a.Value>>32), uint32(a.Value)
	add := func(h, l bpf.Constraint) {
		union = append(union, r.With(bpf.ArgHigh(i), h).With(bpf.ArgLow(i), l))
	}
	var any bpf.Constraint
	below := func() {
		if high > 0 {
			add(bpf.Between(0, high-1), any)
		}
		if low > 0 {
			add(bpf.Exactly(high), bpf.Between(0, low-1))
		}
	}
	above := func() {
		if high < math.MaxUint32 {
			add(bpf.Between(high+1, math.MaxUint32), any)
		}
		if low < math.MaxUint32 {
			add(bpf.Exactly(high), bpf.Between(low+1, math.MaxUint32))
		}
	}
	equal := func() { add(bpf.Exactly(high), bpf.Exactly(low)) }
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
		add(bpf.Masked(high, uint32(datum>>32)), bpf.Masked(low, uint32(datum)))
	}
	return union
}
