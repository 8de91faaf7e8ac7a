package cbpf

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Offsets in seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offIP   = 8
	offArgs = 16
)

const (
	allow = unix.SECCOMP_RET_ALLOW
	errno = unix.SECCOMP_RET_ERRNO
	kill  = unix.SECCOMP_RET_KILL_PROCESS
)

func stmt(code int, k uint32) unix.SockFilter {
	return unix.SockFilter{Code: uint16(code), K: k}
}

func load(offset uint32) unix.SockFilter { return stmt(opLoad, offset) }
func ret(action uint32) unix.SockFilter  { return stmt(opRet, action) }

func alok(op int, k uint32) unix.SockFilter { return stmt(unix.BPF_ALU|op|unix.BPF_K, k) }
func alox(op int) unix.SockFilter           { return stmt(unix.BPF_ALU|op|unix.BPF_X, 0) }

func jump(op int, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: uint16(unix.BPF_JMP | op), Jt: jt, Jf: jf, K: k}
}

// onlyIf runs the program if the field at offset has the value and allows
// everything else.
func onlyIf(offset, value uint32, p Program) Program {
	return append(Program{load(offset), jump(unix.BPF_JEQ, value, 1, 0), ret(allow)}, p...)
}

// shape bounds the programs of randomProgram.
type shape struct {
	offsets   []uint32 // of loads
	constants []uint32
	actions   []uint32
	length    int
	noRetA    bool
}

// randomProgram makes a program that the kernel accepts, with every operation
// code and mostly reachable code.
func randomProgram(r *rand.Rand, s shape) Program {
	const cells = 3
	p := Program{stmt(opImm, s.constant(r))}
	for i := range uint32(cells) {
		p = append(p, load(pickFrom(r, s.offsets)), stmt(opStore, i))
	}
	for len(p) < s.length {
		p = append(p, s.instruction(r, s.length-len(p), cells))
	}
	for range 4 {
		p = append(p, ret(pickFrom(r, s.actions)))
	}
	return p
}

func (s shape) instruction(r *rand.Rand, left, cells int) unix.SockFilter {
	skip := func() uint8 { return uint8(r.IntN(min(left, 12) + 3)) }
	cell := uint32(r.IntN(cells))
	switch n := r.IntN(20); {
	case n < 5:
		return load(pickFrom(r, s.offsets))
	case n < 11:
		op := pickFrom(r, []int{unix.BPF_JEQ, unix.BPF_JGT, unix.BPF_JGE, unix.BPF_JSET})
		return jump(op|pickFrom(r, []int{unix.BPF_K, unix.BPF_K, unix.BPF_X}), s.constant(r), skip(), skip())
	case n < 15:
		return s.alu(r)
	case n < 16:
		return stmt(pickFrom(r, []int{opTAX, opTXA}), 0)
	case n < 17:
		return stmt(pickFrom(r, []int{opStore, opStoreX}), cell)
	case n < 18:
		return stmt(pickFrom(r, []int{opLoadMem, opLoadXMem}), cell)
	case n < 19:
		return stmt(pickFrom(r, []int{opImmX, opImm, opLoadLen, opLoadXLen}), s.constant(r))
	}
	switch {
	case r.IntN(8) != 0:
		return stmt(opJump, uint32(skip()))
	case s.noRetA:
		return ret(pickFrom(r, s.actions))
	}
	return stmt(opRetA, 0)
}

func (s shape) alu(r *rand.Rand) unix.SockFilter {
	op := pickFrom(r, []int{
		unix.BPF_ADD, unix.BPF_SUB, unix.BPF_MUL, unix.BPF_DIV, unix.BPF_AND,
		unix.BPF_OR, unix.BPF_XOR, unix.BPF_LSH, unix.BPF_RSH, unix.BPF_NEG,
	})
	if op != unix.BPF_NEG && r.IntN(3) == 0 {
		return alox(op)
	}
	k := s.constant(r)
	switch op {
	case unix.BPF_DIV:
		k |= 1
	case unix.BPF_LSH, unix.BPF_RSH:
		k %= 32
	}
	return alok(op, k)
}

func (s shape) constant(r *rand.Rand) uint32 { return pickFrom(r, s.constants) }

func pickFrom[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// allActions has every kind, and one that no kernel knows.
var allActions = []uint32{
	kill, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP | 3, errno | 1, errno | 97, errno | 0xffff,
	unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_TRACE | 7, unix.SECCOMP_RET_LOG, allow, allow | 5, 0x12340001,
}
