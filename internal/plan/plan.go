// Package plan resolves a policy and its includes, and decides requests. Its
// Decide is the reference semantics: every backend is tested against it.
package plan

import (
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Plan is a policy with its includes merged: sorted, deduplicated, complete.
// The zero plan denies everything.
type Plan struct {
	Name string
	// Digest is "sha256:…" of the canonical text. It does not depend on the
	// order of items, comments, includes, positions or the policy's name.
	Digest      string
	SocketErrno Errno
	BindErrno   Errno
	Families    []policy.Family // to close besides AF_ALG, by number; those of presets too
	// Sockets are the denied classes that are narrower than a family, none of them
	// within another. SocketOptions and UserNamespaces are denied besides.
	Sockets        []policy.Socket
	SocketOptions  []policy.SocketOption
	UserNamespaces bool
	// ZeroCopy says whether zero-copy into AF_ALG is denied: data that arrives
	// there by splice or sendfile. Only the kernel half can deny it, and does so in
	// enforce unless the policy says false. The zero value means that no file
	// says, and denies there.
	ZeroCopy   policy.Choice
	Rules      []policy.Rule // by name
	Unconfined Unconfined
	// UnconfinedSaid means that a file sets it explicitly.
	UnconfinedSaid bool
	Grants         []policy.Grant // to containers; sorted, without equals
	// ExpectOpen is for verify --all alone: no enforcement uses it.
	ExpectOpen []policy.Expected // sorted, without equals
}

// RefusesZeroCopy reports whether the kernel half refuses zero-copy into AF_ALG:
// unless the policy says that it does not.
func (p *Plan) RefusesZeroCopy() bool { return p == nil || p.ZeroCopy != policy.No }

// Unconfined is the treatment of a container without a seccomp profile. Any
// other value than Harden, LSM and Allow, such as the zero value, means Refuse.
type Unconfined string

const (
	Refuse Unconfined = "refuse" // it does not start
	Harden Unconfined = "harden" // it starts with a profile that closes exactly what the policy closes
	LSM    Unconfined = "lsm"    // it starts as it is where the kernel half is in force, and nowhere else
	Allow  Unconfined = "allow"  // it starts as it is
)

func (u Unconfined) orRefuse() Unconfined {
	if u == Harden || u == LSM || u == Allow {
		return u
	}
	return Refuse
}

// MayBeFree reports whether such a container starts as it is: under Allow, and
// under LSM where the kernel half is in force.
func (u Unconfined) MayBeFree() bool { return u == Allow || u == LSM }

// Errno is an error number with its symbolic name.
type Errno struct {
	Name   string // "EAFNOSUPPORT"
	Number uint32 // 97: the numbers of x86 and of every generic table
}

// The default answers are those of a kernel without AF_ALG, or without the
// algorithm. Clients take the fallback that they already have.
const (
	DefaultSocketErrno = "EAFNOSUPPORT"
	DefaultBindErrno   = "ENOENT"
)

// Limits on a policy with everything that it includes, besides policy.MaxSize
// for each file and policy.MaxRules for all of them.
const (
	maxDepth = 8 // includes in a chain, the named policy not counted
	maxFiles = 1_000
	maxTotal = 8 * policy.MaxSize // bytes of all files
)
