package cbpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Filter is a stack of programs in the order in which they were installed:
// the last one is the newest. The kernel runs them all. An empty filter
// allows everything.
type Filter []Program

// Check checks every program of the stack.
func (f Filter) Check() error {
	for i, p := range f {
		if err := p.Check(); err != nil {
			return fmt.Errorf("filter %d of %d: %w", i+1, len(f), err)
		}
	}
	return nil
}

// Run runs the whole stack and returns the action that the kernel takes and
// the number of instructions executed.
func (f Filter) Run(d Data, e Endian) (Action, int, error) {
	result, executed := Allow.value(), 0
	for i := len(f) - 1; i >= 0; i-- {
		a, n, err := f[i].Run(d, e)
		if err != nil {
			return 0, 0, err
		}
		executed += n
		if a.beats(result) {
			result = a
		}
	}
	return result, executed, nil
}

// machine is the state of a running program. All of it starts at zero.
type machine struct {
	a, x uint32
	mem  [unix.BPF_MEMWORDS]uint32
	data [dataSize / 4]uint32
}

// Run interprets the program as the kernel does. It returns the action and the
// number of executed instructions, including the return. It fails only for
// programs that Check rejects.
func (p Program) Run(d Data, e Endian) (Action, int, error) {
	m := machine{data: d.words(e)}
	executed := 0
	for pc := 0; pc >= 0 && pc < len(p); executed++ {
		in := p[pc]
		if reason := p.checkInstruction(pc); reason != "" {
			return 0, 0, &rejectedError{pc, reason}
		}
		switch {
		case in.Code == opRet:
			return Action(in.K), executed + 1, nil
		case in.Code == opRetA:
			return Action(m.a), executed + 1, nil
		case class(in.Code) == unix.BPF_JMP:
			pc += m.jump(in)
		case class(in.Code) == unix.BPF_ALU:
			if divides(in.Code) && m.operand(in) == 0 {
				// The converter to eBPF makes this "return 0".
				return KillThread.value(), executed + 1, nil
			}
			m.a = alu(in.Code, m.a, m.operand(in))
		default:
			m.move(in)
		}
		pc++
	}
	return 0, 0, &rejectedError{len(p) - 1, "the last instruction must be a return"}
}

func divides(code uint16) bool { return operation(code) == unix.BPF_DIV }

// operand is the second operand of an ALU instruction or a branch.
func (m *machine) operand(in unix.SockFilter) uint32 {
	if usesX(in.Code) {
		return m.x
	}
	return in.K
}

func (m *machine) move(in unix.SockFilter) {
	switch in.Code {
	case opLoad:
		m.a = m.data[in.K/4]
	case opLoadLen:
		m.a = dataSize
	case opLoadXLen:
		m.x = dataSize
	case opImm:
		m.a = in.K
	case opImmX:
		m.x = in.K
	case opLoadMem:
		m.a = m.mem[in.K]
	case opLoadXMem:
		m.x = m.mem[in.K]
	case opStore:
		m.mem[in.K] = m.a
	case opStoreX:
		m.mem[in.K] = m.x
	case opTAX:
		m.x = m.a
	case opTXA:
		m.a = m.x
	}
}

// jump returns the number of instructions to skip.
func (m *machine) jump(in unix.SockFilter) int {
	switch {
	case in.Code == opJump:
		return int(in.K)
	case branches(in.Code, m.a, m.operand(in)):
		return int(in.Jt)
	}
	return int(in.Jf)
}

func branches(code uint16, a, b uint32) bool {
	switch operation(code) {
	case unix.BPF_JEQ:
		return a == b
	case unix.BPF_JGT:
		return a > b
	case unix.BPF_JGE:
		return a >= b
	}
	return a&b != 0 // JSET
}

// alu computes a op b; b is not 0 if op divides. The machine decides the result
// of a shift by 32 or more, which only X can ask for: this is the result of
// x86, arm64 and the kernel's own interpreter.
func alu(code uint16, a, b uint32) uint32 {
	switch operation(code) {
	case unix.BPF_ADD:
		return a + b
	case unix.BPF_SUB:
		return a - b
	case unix.BPF_MUL:
		return a * b
	case unix.BPF_DIV:
		return a / b
	case unix.BPF_AND:
		return a & b
	case unix.BPF_OR:
		return a | b
	case unix.BPF_XOR:
		return a ^ b
	case unix.BPF_LSH:
		return a << (b & 31)
	case unix.BPF_RSH:
		return a >> (b & 31)
	}
	return -a // NEG
}
