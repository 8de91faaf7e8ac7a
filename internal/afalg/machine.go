package afalg

import (
	"strings"

	"golang.org/x/sys/unix"
)

// What the same constant or argument is on the machine of an ABI, where machines
// differ: the numbers elsewhere are those of the generic headers.

func (a ABI) onMIPS() bool { return strings.HasPrefix(a.Name, "mips") }

// SocketTypeOn is the number of a socket type: MIPS exchanges two.
func (a ABI) SocketTypeOn(typ uint32) uint32 {
	if a.onMIPS() && (typ == unix.SOCK_STREAM || typ == unix.SOCK_DGRAM) {
		return unix.SOCK_STREAM + unix.SOCK_DGRAM - typ
	}
	return typ
}

// SocketNonblock is SOCK_NONBLOCK.
func (a ABI) SocketNonblock() uint32 {
	if a.onMIPS() {
		return MIPSNonblock
	}
	return unix.SOCK_NONBLOCK
}

// SocketLevelOn is the number of a level of setsockopt(2).
func (a ABI) SocketLevelOn(level uint32) uint32 {
	if a.onMIPS() && level == unix.SOL_SOCKET {
		return MIPSSolSocket
	}
	return level
}

// CloneFlags is the argument of clone(2) that holds the flags: s390 has the stack
// in the first (CONFIG_CLONE_BACKWARDS2).
func (a ABI) CloneFlags() int {
	if strings.HasPrefix(a.Name, "s390") {
		return 1
	}
	return 0
}

// MIPSNonblock and MIPSSolSocket are SOCK_NONBLOCK and SOL_SOCKET there.
const (
	MIPSNonblock  = 0x80
	MIPSSolSocket = 0xffff
)
