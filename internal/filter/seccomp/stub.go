package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

const (
	offsetNr   = 0 // of seccomp_data.nr
	offsetArch = 4
	retENOSYS  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

	load      = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpAbove = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	jumpSet   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	jumpTo    = unix.BPF_JMP | unix.BPF_JA
	ret       = unix.BPF_RET | unix.BPF_K
)

// label names a place in the stub; next is the instruction that follows.
type label string

const (
	next   label = ""
	filter label = "filter" // behind the stub
	enosys label = "enosys"
	x32    label = "x32"
)

type step struct {
	here   label // its own name, if anything jumps to it
	code   uint16
	k      uint32
	jt, jf label
}

// enosysStub is the code that runc puts before the filter: a call with a number
// above every rule of its ABI gets ENOSYS, whatever the filter would say. runc
// lays out the ABIs in random order; here they are sorted, with the same
// verdicts.
func enosysStub(rules []rule, admitted []specs.Arch) ([]unix.SockFilter, error) {
	last, err := lastCalls(rules, admitted)
	if err != nil || len(last) == 0 {
		return nil, err
	}
	var audits []uint32
	for a := range last {
		if n := abiOf(a).Audit; !slices.Contains(audits, n) {
			audits = append(audits, n)
		}
	}
	slices.Sort(audits)
	steps := []step{{code: load, k: offsetArch}}
	for _, n := range audits {
		steps = append(steps, step{code: jumpEqual, k: n, jt: section(n)})
	}
	steps = append(steps, step{code: jumpTo, jt: filter})
	for _, n := range audits {
		steps = append(steps, step{here: section(n), code: load, k: offsetNr})
		steps = append(steps, checkNumber(n, last)...)
		steps = append(steps, step{code: jumpTo, jt: filter})
	}
	steps = append(steps, step{here: enosys, code: ret, k: retENOSYS})
	return assemble(steps)
}

func section(audit uint32) label { return label(fmt.Sprintf("arch %#x", audit)) }

// checkNumber compares the number with the largest one that a rule names for
// this architecture word.
func checkNumber(n uint32, last map[specs.Arch]uint32) []step {
	if n == unix.AUDIT_ARCH_X86_64 {
		return checkX86(last)
	}
	for a, max := range last {
		switch {
		case abiOf(a).Audit != n:
		case a == specs.ArchS390 || a == specs.ArchS390X:
			// Number 0 multiplexes calls that the kernel does not know.
			return []step{{code: jumpEqual, k: 0, jt: enosys}, {code: jumpAbove, k: max, jt: enosys}}
		default:
			return []step{{code: jumpAbove, k: max, jt: enosys}}
		}
	}
	return nil
}

// checkX86 distinguishes x86-64 from x32, which share an architecture word and
// differ in bit 30. Calls of an ABI without a rule go to the filter.
func checkX86(last map[specs.Arch]uint32) []step {
	max64, ok64 := last[specs.ArchX86_64]
	max32, ok32 := last[specs.ArchX32]
	switch {
	case ok64 && ok32:
		return []step{
			{code: jumpSet, k: afalg.X32Bit, jt: x32},
			{code: jumpAbove, k: max64, jt: enosys, jf: filter},
			{here: x32, code: jumpAbove, k: max32, jt: enosys},
		}
	case ok64:
		return []step{
			{code: jumpSet, k: afalg.X32Bit, jt: filter},
			{code: jumpAbove, k: max64, jt: enosys},
		}
	default:
		return []step{
			{code: jumpSet, k: afalg.X32Bit, jf: filter},
			{code: jumpAbove, k: max32, jt: enosys},
		}
	}
}

// lastCalls finds the largest call number of the rules for each architecture.
func lastCalls(rules []rule, admitted []specs.Arch) (map[specs.Arch]uint32, error) {
	last := map[specs.Arch]uint32{}
	for _, name := range admitted {
		a, err := archOf(name)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			nr, err := libseccomp.GetSyscallFromNameByArch(r.name, a)
			if err == nil && nr > 0 {
				last[name] = max(last[name], uint32(nr))
			}
		}
	}
	return last, nil
}

func assemble(steps []step) ([]unix.SockFilter, error) {
	at := map[label]int{filter: len(steps)}
	for i, s := range steps {
		if s.here != next {
			at[s.here] = i
		}
	}
	insns := make([]unix.SockFilter, len(steps))
	for i, s := range steps {
		distance := func(l label) int {
			if l == next {
				return 0
			}
			return at[l] - i - 1
		}
		jt, jf := distance(s.jt), distance(s.jf)
		insns[i] = unix.SockFilter{Code: s.code, K: s.k, Jt: uint8(jt), Jf: uint8(jf)}
		if s.code == jumpTo {
			insns[i] = unix.SockFilter{Code: s.code, K: uint32(jt)}
		} else if jt < 0 || jf < 0 || jt > 255 || jf > 255 {
			return nil, fmt.Errorf("ENOSYS stub: no jump from instruction %d reaches %q or %q", i, s.jt, s.jf)
		}
	}
	return insns, nil
}

// LastCall returns the largest number that a profile gives runc's ENOSYS stub
// for an architecture; 0 if there is none.
func LastCall(p *specs.LinuxSeccomp, arch specs.Arch) (uint32, error) {
	rules, err := expand(p)
	if err != nil {
		return 0, err
	}
	last, err := lastCalls(rules, []specs.Arch{arch})
	return last[arch], err
}
