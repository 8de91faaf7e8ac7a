// Package cbpf reads, checks, runs and decides the classic BPF programs that the
// kernel accepts as seccomp filters. It needs only the program: its proofs hold
// for every input that the program can get.
package cbpf

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// MaxInstructions is the length of the longest program that the kernel
// accepts (BPF_MAXINSNS).
const MaxInstructions = unix.BPF_MAXINSNS

// instructionSize is the size of struct sock_filter in bytes.
const instructionSize = 8

// Program is one filter, as passed to seccomp(2). Only a program that passes
// Check is meaningful.
type Program []unix.SockFilter

// Endian is the byte order of the machine that runs a program. It decides the
// offsets of the two halves of a 64-bit argument.
type Endian int

const (
	Little Endian = iota
	Big
)

// EndianOf returns Big if big is set.
func EndianOf(big bool) Endian {
	if big {
		return Big
	}
	return Little
}

func (e Endian) String() string {
	if e == Big {
		return "big-endian"
	}
	return "little-endian"
}

func (e Endian) other() Endian { return Big - e }

func (e Endian) order() byteOrder {
	if e == Big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// Parse reads an array of struct sock_filter in the byte order e and checks
// it as the kernel does.
func Parse(raw []byte, e Endian) (Program, error) {
	switch {
	case len(raw) == 0:
		return nil, fmt.Errorf("read BPF program: it is empty")
	case len(raw)%instructionSize != 0:
		return nil, fmt.Errorf("read BPF program: %d bytes are not a whole number of %d-byte instructions; is it truncated?", len(raw), instructionSize)
	case len(raw) > MaxInstructions*instructionSize:
		return nil, fmt.Errorf("read BPF program: %d instructions, but the kernel takes %d at most", len(raw)/instructionSize, MaxInstructions)
	}
	p := decode(raw, e)
	err := p.Check()
	if err == nil {
		return p, nil
	}
	if decode(raw, e.other()).Check() == nil {
		return nil, fmt.Errorf("read BPF program: it is not a %s program, but a valid %s one; was it dumped on another machine?", e, e.other())
	}
	return nil, fmt.Errorf("read BPF program: %w", err)
}

func decode(raw []byte, e Endian) Program {
	order := e.order()
	p := make(Program, len(raw)/instructionSize)
	for i := range p {
		b := raw[i*instructionSize:]
		p[i] = unix.SockFilter{Code: order.Uint16(b), Jt: b[2], Jf: b[3], K: order.Uint32(b[4:])}
	}
	return p
}

// Bytes is the inverse of Parse.
func (p Program) Bytes(e Endian) []byte {
	order := e.order()
	raw := make([]byte, 0, len(p)*instructionSize)
	for _, in := range p {
		raw = order.AppendUint16(raw, in.Code)
		raw = append(raw, in.Jt, in.Jf)
		raw = order.AppendUint32(raw, in.K)
	}
	return raw
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}
