package cbpf

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckReasons(t *testing.T) {
	tests := []struct {
		name    string
		program Program
		want    string
	}{
		{"empty", nil, "it is empty"},
		{"too long", make(Program, 4097), "4097 instructions, more than 4096"},
		{"no code", Program{stmt(0xff, 0)}, "instruction 0: unknown operation code 0x00ff"},
		{"beyond the table", Program{stmt(0x2000, 0)}, "instruction 0: unknown operation code 0x2000"},
		{"packet byte", Program{stmt(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, 0), ret(0)}, "instruction 0: operation code 0x0030 is not available to seccomp filters"},
		{"modulo", Program{alok(unix.BPF_MOD, 3), ret(0)}, "instruction 0: operation code 0x0094 is not available to seccomp filters"},
		{"odd load", Program{load(6), ret(0)}, "instruction 0: load at offset 6, which is not a multiple of 4"},
		{"far load", Program{load(64), ret(0)}, "instruction 0: load at offset 64, beyond the 64 bytes of seccomp_data"},
		{"division", Program{alok(unix.BPF_DIV, 0), ret(0)}, "instruction 0: division by zero"},
		{"shift", Program{alok(unix.BPF_LSH, 32), ret(0)}, "instruction 0: shift by 32, more than 31"},
		{"scratch index", Program{stmt(opStore, 16), ret(0)}, "instruction 0: scratch word 16, but there are 16"},
		{"scratch unwritten", Program{stmt(opStore, 1), stmt(opLoadMem, 2), ret(0)}, "instruction 1: scratch word 2 is read before it is written"},
		{
			"scratch written on one path",
			Program{jump(unix.BPF_JEQ, 1, 0, 1), stmt(opStore, 0), stmt(opLoadMem, 0), ret(0)},
			"instruction 2: scratch word 0 is read before it is written",
		},
		{"jump to the end", Program{stmt(opJump, 1), ret(0)}, "instruction 0: jump by 1, beyond the end"},
		{"jump that would wrap", Program{stmt(opJump, 0xffffffff), ret(0)}, "instruction 0: jump by 4294967295, beyond the end"},
		{"branch", Program{jump(unix.BPF_JGE, 1, 0, 1), ret(0)}, "instruction 0: branch by 0 or 1, beyond the end"},
		{"no return", Program{load(0)}, "instruction 0: the last instruction must be a return"},
		{"branch at the end", Program{ret(0), jump(unix.BPF_JEQ, 0, 0, 0)}, "instruction 1: branch by 0 or 0, beyond the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.program.Check()
			var rejected *rejectedError
			if want := "the kernel rejects this filter: " + tt.want; !errors.As(err, &rejected) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	p := Program{load(offNr), jump(unix.BPF_JEQ, 41, 0, 1), ret(errno | 97), ret(allow)}
	for _, e := range []Endian{Little, Big} {
		if got, err := Parse(p.Bytes(e), e); err != nil || !slices.Equal(got, p) {
			t.Errorf("%v: %v, %v", e, got, err)
		}
	}
	raw := p.Bytes(Little)
	tests := []struct {
		name string
		raw  []byte
		e    Endian
		want string
	}{
		{"empty", nil, Little, "read BPF program: it is empty"},
		{"truncated", raw[:len(raw)-3], Little, "read BPF program: 29 bytes are not a whole number of 8-byte instructions; is it truncated?"},
		{"cut after an instruction", raw[:16], Little, "read BPF program: the kernel rejects this filter: instruction 1: branch by 0 or 1, beyond the end"},
		{"oversized", make([]byte, 8*4097), Little, "read BPF program: 4097 instructions, but the kernel takes 4096 at most"},
		{"wrong order", raw, Big, "read BPF program: it is not a big-endian program, but a valid little-endian one; was it dumped on another machine?"},
		{"wrong order, the other way", p.Bytes(Big), Little, "read BPF program: it is not a little-endian program, but a valid big-endian one; was it dumped on another machine?"},
		{"junk", []byte("#!/bin/sh\nexit 0"), Little, "read BPF program: the kernel rejects this filter: instruction 0: unknown operation code 0x2123"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.raw, tt.e); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestListing(t *testing.T) {
	p := Program{
		load(offArch), load(offNr), load(offIP), load(offIP + 4), load(offArgs), load(offArgs + 44),
		stmt(opLoadLen, 0), stmt(opLoadXLen, 0), stmt(opImm, 5), stmt(opImmX, 0xc000003e),
		stmt(opStore, 3), stmt(opStoreX, 4), stmt(opLoadMem, 3), stmt(opLoadXMem, 4), stmt(opTAX, 0), stmt(opTXA, 0),
		alok(unix.BPF_AND, 0xffff), alox(unix.BPF_LSH), stmt(opNeg, 0),
		jump(unix.BPF_JEQ, 41, 1, 0), jump(unix.BPF_JGT, 41, 0, 1), jump(unix.BPF_JSET|unix.BPF_X, 0, 1, 2), stmt(opJump, 1),
		ret(errno | 97), ret(0x00010000), ret(unix.SECCOMP_RET_TRACE | 2), stmt(opRetA, 0), stmt(0x30, 0), load(70), ret(allow),
	}
	const want = `   0  A = arch
   1  A = nr
   2  A = ip.lo
   3  A = ip.hi
   4  A = args[0].lo
   5  A = args[5].hi
   6  A = 64
   7  X = 64
   8  A = 5
   9  X = 0xc000003e
  10  M[3] = A
  11  M[4] = X
  12  A = M[3]
  13  X = M[4]
  14  X = A
  15  A = X
  16  A &= 0xffff
  17  A <<= X
  18  A = -A
  19  if A == 41 goto 21
  20  unless A > 41 goto 22
  21  if A & X goto 23 else 24
  22  goto 24
  23  return ERRNO(97)
  24  return KILL_PROCESS(unknown action 0x00010000)
  25  return TRACE(2)
  26  return A
  27  invalid code 0x0030
  28  A = data[70], outside seccomp_data
  29  return ALLOW
`
	if got := p.Listing(Little); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFieldsAtOffsets(t *testing.T) {
	d := Data{Nr: 1, Arch: 2, IP: 4<<32 | 3}
	for i := range d.Args {
		d.Args[i] = uint64(20+i)<<32 | uint64(10+i)
	}
	want := map[Endian][16]uint32{
		Little: {1, 2, 3, 4, 10, 20, 11, 21, 12, 22, 13, 23, 14, 24, 15, 25},
		Big:    {1, 2, 4, 3, 20, 10, 21, 11, 22, 12, 23, 13, 24, 14, 25, 15},
	}
	for e, words := range want {
		if got := d.words(e); got != words {
			t.Errorf("%v: got %v, want %v", e, got, words)
		}
	}
	var copied Data
	for f := range Field(NumFields) {
		copied.Set(f, d.Get(f))
	}
	if copied != d {
		t.Errorf("got %v, want %v", copied, d)
	}
}

func TestActions(t *testing.T) {
	for _, tt := range []struct {
		action Action
		want   string
	}{
		{0x80000000, "KILL_PROCESS"}, {0, "KILL_THREAD"}, {9, "KILL_THREAD"}, {0x00030000, "TRAP"}, {0x00030002, "TRAP(2)"},
		{0x00050000, "ERRNO(0)"}, {0x00050061, "ERRNO(97)"}, {0x0005ffff, "ERRNO(4095)"}, {0x7fc00001, "NOTIFY"},
		{0x7ff00000, "TRACE"}, {0x7ff00007, "TRACE(7)"}, {0x7ffc0000, "LOG"}, {0x7fff0005, "ALLOW"},
		{0x7ffe0000, "KILL_PROCESS(unknown action 0x7ffe0000)"}, {0xffff0000, "KILL_PROCESS(unknown action 0xffff0000)"},
	} {
		if got := tt.action.String(); got != tt.want {
			t.Errorf("%#x: got %s, want %s", uint32(tt.action), got, tt.want)
		}
	}
	for k := range Kind(NumKinds - 1) {
		if !k.value().beats((k + 1).value()) || (k + 1).value().beats(k.value()) || k.value().beats(k.value()|1) {
			t.Errorf("precedence of %v and %v", k, k+1)
		}
	}
}

func TestExecuted(t *testing.T) {
	f := Filter{
		{load(offNr), jump(unix.BPF_JEQ, 41, 0, 1), ret(errno | 97), ret(allow)},
		{ret(allow)},
	}
	for nr, want := range map[uint32]Action{41: errno | 97, 42: allow} {
		a, n, err := f.Run(Data{Nr: nr}, Little)
		if a != want || n != 4 || err != nil {
			t.Errorf("nr %d: %v after %d instructions, %v; want %v after 4", nr, a, n, err, want)
		}
	}
	for _, p := range []Program{nil, {load(offNr)}, {stmt(opJump, 7)}, {load(1)}, {stmt(opStore, 99)}, {alok(unix.BPF_DIV, 0)}} {
		if _, _, err := p.Run(Data{}, Little); err == nil {
			t.Errorf("an unchecked program ran: %v", p)
		}
	}
}
