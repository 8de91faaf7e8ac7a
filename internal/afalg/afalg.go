// Package afalg holds the facts that the Linux kernel fixes about AF_ALG:
// constants, algorithm types and names, the routes to a socket, and the system
// call numbers by which each ABI reaches them. It is pure: no I/O, no host
// facts.
package afalg

import "golang.org/x/sys/unix"

// Family is the socket family of the kernel crypto interface
// (include/linux/socket.h).
const Family = unix.AF_ALG

// Type is salg_type: the kind of algorithm that a socket is bound to.
type Type string

// Types with an algif module (crypto/algif_*.c).
const (
	AEAD     Type = "aead"
	Hash     Type = "hash"
	RNG      Type = "rng"
	Skcipher Type = "skcipher"
)

// Types lists every type, sorted.
func Types() []Type { return []Type{AEAD, Hash, RNG, Skcipher} }

// Algorithm is a type and an exact name, written "hash:hmac(sha512)".
// The name "*" stands for every name of the type; it is legal in a policy and
// never in a request.
type Algorithm struct {
	Type Type
	Name string
}

func (a Algorithm) String() string { return string(a.Type) + ":" + a.Name }
