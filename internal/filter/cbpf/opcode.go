package cbpf

import "golang.org/x/sys/unix"

// The operation codes that seccomp accepts (seccomp_check_filter in
// kernel/seccomp.c). ALU and jump codes come with a constant or with X.
const (
	opLoad     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opLoadLen  = unix.BPF_LD | unix.BPF_W | unix.BPF_LEN
	opLoadXLen = unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN
	opImm      = unix.BPF_LD | unix.BPF_IMM
	opImmX     = unix.BPF_LDX | unix.BPF_IMM
	opLoadMem  = unix.BPF_LD | unix.BPF_MEM
	opLoadXMem = unix.BPF_LDX | unix.BPF_MEM
	opStore    = unix.BPF_ST
	opStoreX   = unix.BPF_STX
	opTAX      = unix.BPF_MISC | unix.BPF_TAX
	opTXA      = unix.BPF_MISC | unix.BPF_TXA
	opRet      = unix.BPF_RET | unix.BPF_K
	opRetA     = unix.BPF_RET | unix.BPF_A
	opJump     = unix.BPF_JMP | unix.BPF_JA
	opNeg      = unix.BPF_ALU | unix.BPF_NEG
)

// verdict is the kernel's treatment of an operation code.
type verdict int

const (
	noCode      verdict = iota // no classic BPF code at all
	packetCode                 // classic BPF, but not for seccomp
	seccompCode                // accepted
)

// codes is indexed by operation code; the kernel's table ends within a byte.
var codes = codeTable()

func codeTable() (t [256]verdict) {
	for _, c := range []int{
		opLoad, opLoadLen, opLoadXLen, opImm, opImmX, opLoadMem, opLoadXMem,
		opStore, opStoreX, opTAX, opTXA, opRet, opRetA, opJump, opNeg,
	} {
		t[c] = seccompCode
	}
	for _, op := range []int{
		unix.BPF_ADD, unix.BPF_SUB, unix.BPF_MUL, unix.BPF_DIV, unix.BPF_AND,
		unix.BPF_OR, unix.BPF_XOR, unix.BPF_LSH, unix.BPF_RSH,
	} {
		t[unix.BPF_ALU|op|unix.BPF_K] = seccompCode
		t[unix.BPF_ALU|op|unix.BPF_X] = seccompCode
	}
	for _, op := range []int{unix.BPF_JEQ, unix.BPF_JGT, unix.BPF_JGE, unix.BPF_JSET} {
		t[unix.BPF_JMP|op|unix.BPF_K] = seccompCode
		t[unix.BPF_JMP|op|unix.BPF_X] = seccompCode
	}
	for _, c := range []int{
		unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, unix.BPF_LD | unix.BPF_B | unix.BPF_ABS,
		unix.BPF_LD | unix.BPF_W | unix.BPF_IND, unix.BPF_LD | unix.BPF_H | unix.BPF_IND,
		unix.BPF_LD | unix.BPF_B | unix.BPF_IND, unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH,
		unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, unix.BPF_ALU | unix.BPF_MOD | unix.BPF_X,
	} {
		t[c] = packetCode
	}
	return t
}

func verdictOf(code uint16) verdict {
	if int(code) >= len(codes) {
		return noCode
	}
	return codes[code]
}

func class(code uint16) uint16     { return code & 0x07 }
func operation(code uint16) uint16 { return code & 0xf0 }
func usesX(code uint16) bool       { return code&unix.BPF_X != 0 }

func isBranch(code uint16) bool {
	return class(code) == unix.BPF_JMP && code != opJump
}
