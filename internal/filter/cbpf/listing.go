package cbpf

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Listing writes the program for people, an instruction a line, with the
// fields of seccomp_data by name.
func (p Program) Listing(e Endian) string {
	var b strings.Builder
	for pc, in := range p {
		fmt.Fprintf(&b, "%4d  %s\n", pc, instruction(pc, in, e))
	}
	return b.String()
}

func instruction(pc int, in unix.SockFilter, e Endian) string {
	switch {
	case verdictOf(in.Code) != seccompCode:
		return fmt.Sprintf("invalid code %#04x", in.Code)
	case in.Code == opRet:
		return "return " + Action(in.K).String()
	case in.Code == opRetA:
		return "return A"
	case in.Code == opJump:
		return fmt.Sprintf("goto %d", pc+1+int(in.K))
	case isBranch(in.Code):
		return branchText(pc, in)
	case class(in.Code) == unix.BPF_ALU:
		return aluText(in)
	}
	return moveText(in, e)
}

func branchText(pc int, in unix.SockFilter) string {
	test := fmt.Sprintf("A %s %s", comparisons[operation(in.Code)], operandText(in))
	taken, other := pc+1+int(in.Jt), pc+1+int(in.Jf)
	switch {
	case in.Jf == 0:
		return fmt.Sprintf("if %s goto %d", test, taken)
	case in.Jt == 0:
		return fmt.Sprintf("unless %s goto %d", test, other)
	}
	return fmt.Sprintf("if %s goto %d else %d", test, taken, other)
}

var comparisons = map[uint16]string{
	unix.BPF_JEQ: "==", unix.BPF_JGT: ">", unix.BPF_JGE: ">=", unix.BPF_JSET: "&",
}

var operators = map[uint16]string{
	unix.BPF_ADD: "+", unix.BPF_SUB: "-", unix.BPF_MUL: "*", unix.BPF_DIV: "/", unix.BPF_AND: "&",
	unix.BPF_OR: "|", unix.BPF_XOR: "^", unix.BPF_LSH: "<<", unix.BPF_RSH: ">>",
}

func aluText(in unix.SockFilter) string {
	if in.Code == opNeg {
		return "A = -A"
	}
	return fmt.Sprintf("A %s= %s", operators[operation(in.Code)], operandText(in))
}

func operandText(in unix.SockFilter) string {
	if usesX(in.Code) {
		return "X"
	}
	return number64(uint64(in.K))
}

func moveText(in unix.SockFilter, e Endian) string {
	switch in.Code {
	case opLoad:
		if in.K%4 != 0 || in.K >= dataSize {
			return fmt.Sprintf("A = data[%d], outside seccomp_data", in.K)
		}
		return "A = " + fieldAt(in.K/4, e).String()
	case opLoadLen:
		return fmt.Sprintf("A = %d", dataSize)
	case opLoadXLen:
		return fmt.Sprintf("X = %d", dataSize)
	case opImm:
		return "A = " + number64(uint64(in.K))
	case opImmX:
		return "X = " + number64(uint64(in.K))
	case opLoadMem:
		return fmt.Sprintf("A = M[%d]", in.K)
	case opLoadXMem:
		return fmt.Sprintf("X = M[%d]", in.K)
	case opStore:
		return fmt.Sprintf("M[%d] = A", in.K)
	case opStoreX:
		return fmt.Sprintf("M[%d] = X", in.K)
	case opTAX:
		return "X = A"
	}
	return "A = X"
}
