package verify

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

const (
	loadAbsolute = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpIfEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpAlways   = unix.BPF_JMP | unix.BPF_JA
	archOffset   = 4 // of seccomp_data.arch
)

// archWord is a constant that a program compares with the ABI word.
type archWord struct {
	pc   int
	word uint32
}

// archWords lists the equality tests of a checked program in which the
// accumulator holds the ABI word on every path.
func archWords(p cbpf.Program) []archWord {
	const unreached, arch, other = 0, 1, 2
	holds := make([]byte, len(p))
	holds[0] = other
	var words []archWord
	for pc, in := range p {
		now := holds[pc]
		flow := func(distance uint32) { holds[uint32(pc)+1+distance] |= now }
		if now == unreached {
			continue
		}
		switch class := in.Code & 7; {
		case class == unix.BPF_RET:
			continue
		case in.Code == jumpAlways:
			flow(in.K)
			continue
		case class == unix.BPF_JMP:
			if in.Code == jumpIfEqual && now == arch {
				words = append(words, archWord{pc, in.K})
			}
			flow(uint32(in.Jt))
			flow(uint32(in.Jf))
			continue
		case in.Code == loadAbsolute && in.K == archOffset:
			now = arch
		case class == unix.BPF_LD || class == unix.BPF_ALU || in.Code == unix.BPF_MISC|unix.BPF_TXA:
			now = other
		}
		flow(0)
	}
	return words
}

// auditFlags are all flags of AUDIT_ARCH_* words.
const auditFlags = afalg.Audit64Bit | afalg.AuditLittleEndian | afalg.AuditMIPSN32

// otherMachines are machines with seccomp filters that afalg.ABIs leaves out,
// by their ELF numbers (linux/elf-em.h): m68k, parisc, sh, xtensa, openrisc,
// arc, csky, hexagon, microblaze, riscv for its 32-bit form.
var otherMachines = []uint32{4, 15, 42, 92, 93, 94, 164, 189, 195, 243, 252}

// isABI reports whether a word can be seccomp_data.arch on a machine of that
// byte order.
func isABI(word uint32, e cbpf.Endian) bool {
	if (word&afalg.AuditLittleEndian != 0) != (e == cbpf.Little) {
		return false
	}
	known := slices.ContainsFunc(afalg.ABIs(), func(a afalg.ABI) bool { return a.Audit == word })
	return known || word&auditFlags != 0 && slices.Contains(otherMachines, word&^auditFlags)
}

// NativeOf guesses the machines that a program is for by the ABI words that it
// compares: the 64-bit ones, or those of 32 bits if there are no others. A
// program that compares none is for all.
func NativeOf(p cbpf.Program) []afalg.ABI {
	var natives, others []afalg.ABI
	for _, w := range archWords(p) {
		for _, a := range afalg.ABIs() {
			switch {
			case a.Audit != w.word || a.Kind == afalg.X32 || slices.Contains(natives, a) || slices.Contains(others, a):
			case a.Kind == afalg.Native:
				natives = append(natives, a)
			default:
				others = append(others, a)
			}
		}
	}
	if natives == nil {
		return others
	}
	return natives
}

// machineOf returns the 64-bit ABI of the machine that runs an ABI.
func machineOf(arch string) (afalg.ABI, bool) {
	abis := afalg.Siblings(arch)
	if abis == nil {
		return afalg.ABI{}, false
	}
	return abis[0], true
}
