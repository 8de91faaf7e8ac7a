package oracle

import (
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// The calls that reach a denied class on x86-64, as a program could make them.
// They are written down without the code that closes or proves.

// halves are values of a register whose lower half is v.
func halves(v uint32) []uint64 {
	all := []uint64{uint64(v)}
	for _, high := range highs {
		all = append(all, uint64(v)|high<<32)
	}
	return all
}

// wides say which of halves family, type and protocol have.
var wides = [][3]int{{0, 0, 0}, {1, 0, 0}, {0, 2, 0}, {0, 0, 3}, {0, 4, 4}, {1, 1, 1}}

// SocketCalls make sockets of a class, and pairs of them.
func SocketCalls(s afalg.Sockets) []cbpf.Data {
	types := []uint32{s.Type}
	if s.Type == 0 {
		types = []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET}
	}
	protocols := []uint32{s.Protocol}
	if !s.HasProtocol {
		protocols = []uint32{0, 6, 256}
	}
	var calls []cbpf.Data
	for _, typ := range types {
		for _, flags := range []uint32{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
			for _, protocol := range protocols {
				for _, wide := range wides {
					args := [6]uint64{halves(s.Family)[wide[0]], halves(typ | flags)[wide[1]], halves(protocol)[wide[2]], Pair}
					calls = append(calls, everywhere(args, func(a afalg.ABI) uint32 { return a.Socket })...)
					calls = append(calls, everywhere(args, func(a afalg.ABI) uint32 { return a.Socketpair })...)
				}
			}
		}
	}
	return calls
}

// OptionCalls set a socket option.
func OptionCalls(o afalg.SocketOption) []cbpf.Data {
	var calls []cbpf.Data
	for _, level := range halves(o.Level) {
		for _, option := range halves(o.Option) {
			args := [6]uint64{3, level, option, Pair, 4}
			calls = append(calls, everywhere(args, func(a afalg.ABI) uint32 { return a.Setsockopt })...)
		}
	}
	return calls
}

const sigchld = uint32(unix.SIGCHLD)

// NamespaceCalls make a user namespace.
func NamespaceCalls() []cbpf.Data {
	numbers := map[afalg.Kind][3]uint32{ // clone, unshare, clone3
		afalg.Native: {56, 272, 435}, afalg.Compat: {120, 310, 435}, afalg.X32: {56, 272, 435},
	}
	var calls []cbpf.Data
	for _, flags := range []uint32{0, sigchld, unix.CLONE_NEWNS | unix.CLONE_NEWNET, unix.CLONE_VM | unix.CLONE_VFORK | sigchld} {
		for _, wide := range halves(flags | unix.CLONE_NEWUSER) {
			for i := range 3 {
				calls = append(calls, everywhere([6]uint64{wide, 88}, func(a afalg.ABI) uint32 { return numbers[a.Kind][i] })...)
			}
		}
	}
	return calls
}

// everywhere makes a call by every ABI of the machine.
func everywhere(args [6]uint64, number func(afalg.ABI) uint32) []cbpf.Data {
	var calls []cbpf.Data
	for _, abi := range Machine {
		calls = append(calls, cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | number(abi), Args: args})
	}
	return calls
}
