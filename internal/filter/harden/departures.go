package harden

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// A departure is where a hardened profile may do other than its base. Whoever
// rewrites rules declares it; everywhere else the two are proved equal.
type departure struct {
	call  string
	parts []cbpf.Region // of the call's inputs; none stands for all of them
	// sockets is the part for a class instead, which has other numbers on MIPS.
	sockets *afalg.Sockets
	newUser bool // the part with CLONE_NEWUSER instead, in another argument on s390
	// gap names the gap that reports it; "" for what the policy itself says of
	// a family.
	gap string
	// opens allows the result to permit what the base refuses. Without it the
	// result permits no more than the base, inside the departure too.
	opens bool
}

// depart declares that the result may refuse calls, or refuse them in another
// way.
func (ch *change) depart(gap, call string, parts ...cbpf.Region) {
	ch.departures = append(ch.departures, departure{call: call, parts: parts, gap: gap})
}

// open declares that the result may permit calls, too.
func (ch *change) open(gap, call string, parts ...cbpf.Region) {
	ch.departures = append(ch.departures, departure{call: call, parts: parts, gap: gap, opens: true})
}

// reviveDenials declares the calls that the base itself denies. Its program may
// lack that: libseccomp 2.5.4 to 2.6.1 compile denials on socket beside one of
// all of socketcall, for x86-64 with x32, to code that never loads the number of
// the call. As everywhere, nothing more is permitted.
func (h *hardener) reviveDenials(call string, base []profile.Rule) {
	for _, r := range denials(base) {
		if parts := partsOf(r.Args); parts != nil {
			h.change.revived = true
			h.change.depart(gapRevived, call, parts...)
		}
	}
}

// partsOf are the inputs of a call that meet comparisons, as the kernel takes
// them: as ints. nil stands for comparisons that cannot be said so.
func partsOf(args []specs.LinuxSeccompArg) []cbpf.Region {
	parts := []cbpf.Region{cbpf.Everything}
	for _, a := range args {
		low := cbpf.Exactly(uint32(a.Value))
		switch {
		case a.Op == specs.OpEqualTo:
		case a.Op == specs.OpMaskedEqual && uint32(a.Value) == lowWord:
			low = cbpf.Exactly(uint32(a.ValueTwo))
		default:
			return nil
		}
		for i := range parts {
			parts[i] = parts[i].With(cbpf.ArgLow(int(a.Index)), low)
		}
	}
	return parts
}

// argument is the part of a call's inputs with one value in an argument that
// the kernel takes as an int.
func argument(index int, value uint32) cbpf.Region {
	return cbpf.Everything.With(cbpf.ArgLow(index), cbpf.Exactly(value))
}

// atLeast is the part with an argument of that much, high bits included.
func atLeast(index int, value uint32) []cbpf.Region {
	return []cbpf.Region{
		cbpf.Everything.With(cbpf.ArgLow(index), cbpf.Between(value, math.MaxUint32)),
		cbpf.Everything.With(cbpf.ArgHigh(index), cbpf.Not(0)),
	}
}

// regionsOf lists the inputs of departures on ABIs.
func regionsOf(departures []departure, abis []afalg.ABI) []cbpf.Region {
	var regions []cbpf.Region
	for _, d := range departures {
		for _, abi := range abis {
			regions = append(regions, d.on(abi)...)
		}
	}
	return regions
}

func (d departure) on(abi afalg.ABI) []cbpf.Region {
	nr, ok := numberOn(abi, d.call)
	if !ok {
		return nil
	}
	parts := slices.Clone(d.parts)
	switch {
	case d.sockets != nil:
		parts = []cbpf.Region{regionOf(*d.sockets, abi)}
	case d.newUser:
		parts = []cbpf.Region{verify.NewUser(abi, d.call)}
	}
	if len(parts) == 0 {
		parts = []cbpf.Region{cbpf.Everything}
	}
	for i := range parts {
		parts[i] = parts[i].With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
	}
	return parts
}

// numberOn is the number of a call on an ABI as a filter sees it.
func numberOn(abi afalg.ABI, call string) (nr uint32, ok bool) {
	if i := slices.Index(ioUringCalls, call); i >= 0 {
		return abi.Bit | abi.IOUring + uint32(i), true
	}
	if nr, known := abi.Number(call); known {
		return nr, nr != 0
	}
	nr, err := seccomp.Number(call, specs.Arch(abi.Arch))
	return nr, err == nil
}

// opening lists the departures by which the result may permit more.
func opening(departures []departure) []departure {
	return slices.DeleteFunc(slices.Clone(departures), func(d departure) bool { return !d.opens })
}
