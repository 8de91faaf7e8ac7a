package afalg

import (
	"bytes"
	"fmt"
	"strings"
)

// struct sockaddr_alg (include/uapi/linux/if_alg.h): u16 family, char type[14],
// u32 feat, u32 mask, and the name, which the caller may make shorter or longer
// than the 64 bytes of the structure.
const (
	sockaddrType = 2
	sockaddrFeat = 16
	sockaddrName = 24

	// SockaddrSize is the size of the structure; every known client passes it.
	SockaddrSize = 88
	// minSockaddr is the least that alg_bind asks for since Linux 5.11.
	minSockaddr = sockaddrName + 1
	// maxSockaddr is sizeof(struct sockaddr_storage): the kernel copies no
	// longer address, whatever its family.
	maxSockaddr = 128

	maxType = sockaddrFeat - sockaddrType - 1
)

// ParseSockaddr reads an address as alg_bind (crypto/af_alg.c) does, and
// nothing more: it never looks at the family, ends the type at its 14th byte
// and the name at the last byte of the address, and stops at the first NUL of
// each. Type and name may be of any bytes, even empty: the decision is by exact
// string, and an unknown one is denied. Addresses that the newest kernel
// refuses for their length are an error.
func ParseSockaddr(b []byte) (Algorithm, error) {
	if len(b) < minSockaddr || len(b) > maxSockaddr {
		return Algorithm{}, fmt.Errorf("address of %d bytes: a sockaddr_alg has %d to %d", len(b), minSockaddr, maxSockaddr)
	}
	return Algorithm{
		Type: Type(cString(b[sockaddrType : sockaddrFeat-1])),
		Name: cString(b[sockaddrName : len(b)-1]),
	}, nil
}

// AddressStart returns the bytes with which an address of an algorithm begins on
// a little-endian machine: up to the NUL that ends the name, or, where any name
// will do, the NUL that ends the type. No address of another algorithm begins
// so. One of this algorithm may begin otherwise, with bytes behind the type that
// the kernel does not read, or with flags.
func AddressStart(a Algorithm) string {
	start := string([]byte{Family, 0}) + string(a.Type) + "\x00"
	if a.Name == AnyName {
		return start
	}
	return start + strings.Repeat("\x00", sockaddrName-len(start)) + a.Name + "\x00"
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
