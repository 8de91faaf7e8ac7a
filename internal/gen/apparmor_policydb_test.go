package gen

import (
	"encoding/binary"
	"strings"
	"testing"
)

// policydb is the automaton of a compiled profile that mediates all but files,
// read independently of apparmor_parser, as security/apparmor/match.c does.
type policydb struct {
	accept, base, next, check, fallback, classes []uint32
}

// The tables of an automaton, by their number in the kernel's match.h.
const (
	tableAccept  = 1
	tableBase    = 2
	tableCheck   = 3
	tableDefault = 4
	tableClasses = 5
	tableNext    = 8
)

const (
	classNet   = 14   // AA_CLASS_NET
	mayCreate  = 0x10 // AA_MAY_CREATE
	diffEncode = 1 << 31
	baseIndex  = 1<<24 - 1
	startState = 1
)

// readPolicydb finds the automaton in the profile's stream, behind its name.
func readPolicydb(t *testing.T, stream string) policydb {
	t.Helper()
	_, rest, ok := strings.Cut(stream, "policydb\x00")
	i := strings.Index(rest, "\x1b\x5e\x78\x3d")
	if !ok || i < 0 {
		t.Fatal("the compiled profile has no policydb")
	}
	if strings.Contains(rest, "permsv\x00") || strings.Contains(rest, "perms\x00") {
		t.Fatal("the compiled profile has a table of permissions, which this test does not read")
	}
	data := []byte(rest[i:])
	tables := map[uint16][]uint32{}
	end := int(binary.BigEndian.Uint32(data[8:]))
	for at := int(binary.BigEndian.Uint32(data[4:])); at < end; {
		id, width, length := binary.BigEndian.Uint16(data[at:]), int(binary.BigEndian.Uint16(data[at+2:])), int(binary.BigEndian.Uint32(data[at+8:]))
		at += 12
		for range length {
			tables[id] = append(tables[id], bigEndian(data[at:at+width]))
			at += width
		}
		at = (at + 7) &^ 7
	}
	return policydb{tables[tableAccept], tables[tableBase], tables[tableNext], tables[tableCheck], tables[tableDefault], tables[tableClasses]}
}

func bigEndian(b []byte) uint32 {
	var n uint32
	for _, c := range b {
		n = n<<8 | uint32(c)
	}
	return n
}

func (p policydb) step(state uint32, c byte) uint32 {
	in := uint32(c)
	if p.classes != nil {
		in = p.classes[c]
	}
	for {
		at := p.base[state]&baseIndex + in
		if int(at) < len(p.check) && p.check[at] == state {
			return p.next[at]
		}
		differs := p.base[state]&diffEncode != 0
		state = p.fallback[state]
		if !differs {
			return state
		}
	}
}

// creates reports whether the profile lets a process make such a socket. A
// profile that has no state for the class does not mediate sockets at all.
func (p policydb) creates(family, sockType uint32) bool {
	state := p.step(startState, classNet)
	if state == 0 {
		return true
	}
	for _, c := range []byte{byte(family >> 8), byte(family), byte(sockType >> 8), byte(sockType)} {
		state = p.step(state, c)
	}
	return p.accept[state]&mayCreate != 0
}
