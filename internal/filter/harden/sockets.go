package harden

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// Arguments of socket and socketpair.
const (
	argType     = 1
	argProtocol = 2
)

// protocolLimit is above the protocols of every family of which classes can be
// named (IPPROTO_MAX is 263).
const protocolLimit = 264

// typeFlags are the flags that a kernel takes beside the type, in every
// combination: SOCK_CLOEXEC, and SOCK_NONBLOCK, which is another on MIPS. With
// any other bit it answers EINVAL.
var typeFlags = []uint64{
	0, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC,
	afalg.MIPSNonblock, afalg.MIPSNonblock | unix.SOCK_CLOEXEC,
}

// typesWith lists a type with all flags.
func typesWith(typ uint32) []uint64 {
	var all []uint64
	for _, flags := range typeFlags {
		all = append(all, uint64(typ)|flags)
	}
	return all
}

// ownFamily lists the permissions of one family of which classes are closed, and
// the denials. Together they answer every call of the family that the permission
// is for, so that a range which holds the family is not asked.
func (h *hardener) ownFamily(name string, family uint32, permissions []permission, base []profile.Rule, ranges bool) ([]profile.Rule, error) {
	var rules []profile.Rule
	within := argument(0, family)
	bounds := h.boundsOf(family, base)
	for _, p := range permissions {
		if !p.families[family] {
			continue
		}
		one := p.rule
		one.Args = append([]specs.LinuxSeccompArg{equals(uint64(family))}, p.rule.Args...)
		parts, lost, err := narrowed(one, bounds, within)
		if err != nil {
			return nil, err
		}
		rules = append(rules, parts...)
		h.loses(name, lost...)
		if ranges && int(family) < p.below() {
			for _, b := range bounds {
				above := h.refuse("afalg-policy: no int has these values", name, h.errno, append(slices.Clone(one.Args), b.compare(specs.OpGreaterEqual, intLimit))...)
				rules = append(rules, where(one, above)...)
			}
		}
	}
	if len(rules) == 0 {
		return nil, nil // the base refuses the whole family
	}
	for _, s := range h.within(family) {
		rules = append(rules, h.denySockets(name, s)...)
	}
	return rules, nil
}

// boundsOf lists the arguments that the closed classes of a family compare.
func (h *hardener) boundsOf(family uint32, base []profile.Rule) []bound {
	alone := func(denies func(afalg.Sockets) bool) bool { return slices.ContainsFunc(h.within(family), denies) }
	answered := func(index uint) func(profile.Rule, uint64) bool {
		return func(r profile.Rule, v uint64) bool {
			return slices.ContainsFunc(denials(base), func(d profile.Rule) bool {
				return sameScope(r, d) && slices.Equal(d.Args, []specs.LinuxSeccompArg{equals(uint64(family)), {Index: index, Op: specs.OpEqualTo, Value: v}})
			})
		}
	}
	types := bound{index: argType, answered: answered(argType), beyond: otherBits()}
	for typ := range uint32(afalg.SocketTypeMask + 1) {
		types.values = append(types.values, typesWith(typ)...)
	}
	types.denied = func(v uint64) bool {
		return alone(func(s afalg.Sockets) bool { return !s.HasProtocol && slices.Contains(typesWith(s.Type), v) })
	}
	protocols := bound{index: argProtocol, answered: answered(argProtocol), beyond: []cbpf.Constraint{cbpf.Between(protocolLimit, math.MaxUint32)}}
	for v := range uint64(protocolLimit) {
		protocols.values = append(protocols.values, v)
	}
	protocols.denied = func(v uint64) bool {
		return alone(func(s afalg.Sockets) bool { return s.Type == 0 && uint64(s.Protocol) == v })
	}
	var bounds []bound
	if alone(func(s afalg.Sockets) bool { return s.Type != 0 }) {
		bounds = append(bounds, types)
	}
	if alone(func(s afalg.Sockets) bool { return s.HasProtocol }) {
		bounds = append(bounds, protocols)
	}
	return bounds
}

// otherBits are the types with bits that belong to no type and are no flags.
func otherBits() []cbpf.Constraint {
	const known = afalg.SocketTypeMask | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK | afalg.MIPSNonblock
	var all []cbpf.Constraint
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if bit&known == 0 {
			all = append(all, cbpf.Masked(bit, bit))
		}
	}
	return append(all, cbpf.Masked(unix.SOCK_NONBLOCK|afalg.MIPSNonblock, unix.SOCK_NONBLOCK|afalg.MIPSNonblock))
}

// denySockets denies a class in a profile that denies by default.
func (h *hardener) denySockets(name string, s afalg.Sockets) []profile.Rule {
	args := []specs.LinuxSeccompArg{equals(uint64(s.Family))}
	protocol := func(args []specs.LinuxSeccompArg) []specs.LinuxSeccompArg {
		if s.HasProtocol {
			args = append(args, specs.LinuxSeccompArg{Index: argProtocol, Op: specs.OpEqualTo, Value: uint64(s.Protocol)})
		}
		return args
	}
	if s.Type == 0 {
		return h.refuse(whyClosed(s), name, h.errno, protocol(args)...)
	}
	var rules []profile.Rule
	for _, m := range typesOn(s.Type) {
		for _, typ := range typesWith(m.typ) {
			one := append(slices.Clone(args), specs.LinuxSeccompArg{Index: argType, Op: specs.OpEqualTo, Value: typ})
			rules = append(rules, where(m.on, h.refuse(whyClosed(s), name, h.errno, protocol(one)...))...)
		}
	}
	return rules
}

// subtractSockets denies a class in a profile that allows by default.
func (h *hardener) subtractSockets(name string, s afalg.Sockets) []profile.Rule {
	masked := func(index uint, mask, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Op: specs.OpMaskedEqual, Value: mask, ValueTwo: value}
	}
	var rules []profile.Rule
	for _, m := range typesOn(s.Type) {
		args := []specs.LinuxSeccompArg{lowEquals(uint64(s.Family))}
		if s.Type != 0 {
			args = append(args, masked(argType, afalg.SocketTypeMask, uint64(m.typ)))
		}
		if s.HasProtocol {
			args = append(args, masked(argProtocol, lowWord, uint64(s.Protocol)))
		}
		rules = append(rules, where(m.on, h.deny(whyClosed(s), name, h.errno, args...))...)
	}
	return rules
}

func whyClosed(s afalg.Sockets) string { return "afalg-policy: " + s.String() + " is closed" }

// typed is a type, and the machines where it has that number.
type typed struct {
	typ uint32
	on  profile.Rule // its conditions say where
}

// typesOn lists the numbers of a type.
func typesOn(typ uint32) []typed {
	swapped := mips[0].SocketTypeOn(typ)
	if swapped == typ {
		return []typed{{typ: typ}}
	}
	var names []string
	for _, abi := range mips {
		if abi.Short != "" {
			names = append(names, abi.Short)
		}
	}
	on := &profile.Condition{Arches: names}
	return []typed{{typ, profile.Rule{Excludes: on}}, {swapped, profile.Rule{Includes: on}}}
}

// mips are the ABIs on which SOCK_STREAM and SOCK_DGRAM have exchanged numbers.
var mips = slices.DeleteFunc(afalg.ABIs(), func(a afalg.ABI) bool { return a.SocketTypeOn(unix.SOCK_STREAM) == unix.SOCK_STREAM })

// declareSockets declares the closed classes.
func (h *hardener) declareSockets(name string) {
	for _, s := range h.narrow {
		h.change.departures = append(h.change.departures, departure{call: name, sockets: &s})
	}
}

// regionOf are the calls for a class on an ABI, whatever the flags and high bits
// are.
func regionOf(s afalg.Sockets, abi afalg.ABI) cbpf.Region {
	r := argument(0, s.Family)
	if s.Type != 0 {
		r = r.With(cbpf.ArgLow(argType), cbpf.Masked(afalg.SocketTypeMask, abi.SocketTypeOn(s.Type)))
	}
	if s.HasProtocol {
		r = r.With(cbpf.ArgLow(argProtocol), cbpf.Exactly(s.Protocol))
	}
	return r
}

// gapInts is about arguments of which the kernel reads the lower half.
const gapInts = "high-bits"

// loses declares inputs with high bits in such arguments.
func (h *hardener) loses(name string, parts ...cbpf.Region) {
	if len(parts) > 0 {
		h.change.ints = true
		h.change.depart(gapInts, name, parts...)
	}
}

// denies reports whether one of the denials among rules is about the same calls as
// another, whatever the order of the comparisons is.
func denies(rules []profile.Rule, other profile.Rule) bool {
	sorted := func(r profile.Rule) []specs.LinuxSeccompArg {
		return slices.SortedFunc(slices.Values(r.Args), func(a, b specs.LinuxSeccompArg) int { return int(a.Index) - int(b.Index) })
	}
	return slices.ContainsFunc(denials(rules), func(r profile.Rule) bool { return slices.Equal(sorted(r), sorted(other)) })
}

// refuse is a denial that the runtimes do not drop: without it something wider
// would permit the call.
func (h *hardener) refuse(why, name string, errno uint, args ...specs.LinuxSeccompArg) []profile.Rule {
	for _, e := range []uint{errno, uint(unix.ENOSYS), uint(unix.EPERM)} {
		if !h.isDefault(e) {
			return h.deny(why, name, e, args...)
		}
	}
	return nil
}
