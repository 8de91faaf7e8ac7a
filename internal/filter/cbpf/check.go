package cbpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// rejectedError says why the kernel would refuse a program. The kernel itself
// only says EINVAL.
type rejectedError struct {
	PC     int // index of the instruction, -1 for the program as a whole
	Reason string
}

func (e *rejectedError) Error() string {
	if e.PC < 0 {
		return "the kernel rejects this filter: " + e.Reason
	}
	return fmt.Sprintf("the kernel rejects this filter: instruction %d: %s", e.PC, e.Reason)
}

// Check accepts exactly the programs that seccomp(2) accepts: those that pass
// bpf_check_classic (net/core/filter.c) and then seccomp_check_filter
// (kernel/seccomp.c). The error is a *rejectedError.
func (p Program) Check() error {
	if len(p) == 0 {
		return &rejectedError{-1, "it is empty"}
	}
	if len(p) > MaxInstructions {
		return &rejectedError{-1, fmt.Sprintf("%d instructions, more than %d", len(p), MaxInstructions)}
	}
	for pc := range p {
		if reason := p.checkInstruction(pc); reason != "" {
			return &rejectedError{pc, reason}
		}
	}
	if last := p[len(p)-1].Code; last != opRet && last != opRetA {
		return &rejectedError{len(p) - 1, "the last instruction must be a return"}
	}
	return p.checkScratch()
}

func (p Program) checkInstruction(pc int) string {
	in := p[pc]
	switch verdictOf(in.Code) {
	case noCode:
		return fmt.Sprintf("unknown operation code %#04x", in.Code)
	case packetCode:
		return fmt.Sprintf("operation code %#04x is not available to seccomp filters", in.Code)
	}
	left := uint64(len(p) - pc - 1) // instructions after this one
	switch {
	case in.Code == opLoad && in.K%4 != 0:
		return fmt.Sprintf("load at offset %d, which is not a multiple of 4", in.K)
	case in.Code == opLoad && in.K >= dataSize:
		return fmt.Sprintf("load at offset %d, beyond the %d bytes of seccomp_data", in.K, dataSize)
	case in.Code == unix.BPF_ALU|unix.BPF_DIV|unix.BPF_K && in.K == 0:
		return "division by zero"
	case isConstantShift(in.Code) && in.K >= 32:
		return fmt.Sprintf("shift by %d, more than 31", in.K)
	case isScratch(in.Code) && in.K >= unix.BPF_MEMWORDS:
		return fmt.Sprintf("scratch word %d, but there are %d", in.K, unix.BPF_MEMWORDS)
	case in.Code == opJump && uint64(in.K) >= left:
		return fmt.Sprintf("jump by %d, beyond the end", in.K)
	case isBranch(in.Code) && (uint64(in.Jt) >= left || uint64(in.Jf) >= left):
		return fmt.Sprintf("branch by %d or %d, beyond the end", in.Jt, in.Jf)
	}
	return ""
}

func isConstantShift(code uint16) bool {
	return code == unix.BPF_ALU|unix.BPF_LSH|unix.BPF_K || code == unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K
}

func isScratch(code uint16) bool {
	return code == opStore || code == opStoreX || code == opLoadMem || code == opLoadXMem
}

// checkScratch follows check_load_and_stores: a word of scratch memory must
// have been written on every path that reads it. Like the kernel, it ignores
// that nothing falls through a return.
func (p Program) checkScratch() error {
	const all = 1<<unix.BPF_MEMWORDS - 1
	missing := make([]uint32, len(p)) // words that some jump to here has not written
	written := uint32(0)
	for pc, in := range p {
		written &^= missing[pc]
		switch {
		case in.Code == opStore || in.Code == opStoreX:
			written |= 1 << in.K
		case in.Code == opLoadMem || in.Code == opLoadXMem:
			if written&(1<<in.K) == 0 {
				return &rejectedError{pc, fmt.Sprintf("scratch word %d is read before it is written", in.K)}
			}
		case class(in.Code) == unix.BPF_JMP:
			for _, to := range p.successors(pc) {
				missing[to] |= all &^ written
			}
			written = all
		}
	}
	return nil
}

// successors lists where control goes from pc, in a checked program.
func (p Program) successors(pc int) []int {
	in := p[pc]
	switch {
	case class(in.Code) == unix.BPF_RET:
		return nil
	case in.Code == opJump:
		return []int{pc + 1 + int(in.K)}
	case isBranch(in.Code):
		return []int{pc + 1 + int(in.Jt), pc + 1 + int(in.Jf)}
	}
	return []int{pc + 1}
}
