// Package policy reads the policy file: strict, every error at once, with the
// position of each item kept.
package policy

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Pos is a place in a policy file; lines and columns count from 1.
type Pos struct {
	File      string
	Line, Col int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Policy is one policy file, validated, its includes not yet resolved.
type Policy struct {
	Name    string
	File    string // as named by the user
	Include []Include
	Deny    Deny
	Rules   []Rule

	Containers Containers
}

// BuiltinPrefix begins the name of a shipped policy.
const BuiltinPrefix = "builtin:"

// Include names another policy: "builtin:NAME" or a path relative to the file
// that names it.
type Include struct {
	Name string
	Pos  Pos
}

// Deny holds what is denied besides bind, and how. An errno is a symbolic
// name ("EAFNOSUPPORT"), or empty where the file does not say.
type Deny struct {
	SocketErrno string
	BindErrno   string
	Families    []Family
}

// Family is a further socket family to close: its constant's name and number.
type Family struct {
	Name   string
	Number uint32
	Pos    Pos
}

// Rule is one allow entry. Every condition that is given must hold; within a
// condition one match is enough. A rule has at least one condition, or says
// Anyone; one with neither is no rule that Parse returns, and matches nobody.
type Rule struct {
	Name         string
	Pos          Pos
	Anyone       bool // there are no conditions, on purpose
	Binaries     []Binary
	Users        []string    // a name, or a decimal uid
	Capabilities []string    // "CAP_NET_ADMIN"
	Units        []string    // "iwd.service"; the template "x@.service" stands for its instances
	Algorithms   []Algorithm // at least one; by type, then in the order of the file
}

// Binary is an executable, by the path that the kernel shows for it.
type Binary struct {
	Path   string
	SHA256 string // lower-case hex, or empty
	Pos    Pos
}

// Algorithm is an allowed algorithm and where it stands. Its name may be
// afalg.AnyName, which opens the whole type.
type Algorithm struct {
	afalg.Algorithm
	Pos Pos
}

// Containers says how containers are started.
type Containers struct {
	// Unconfined is one of Unconfineds, or empty where the file does not say.
	Unconfined string
	Grants     []Grant
}

// Grant gives rules to containers. Every condition that is given must hold;
// within a list one match is enough, within a map each entry must match. A
// grant has at least one condition besides Platforms; one without is no grant
// that Parse returns, and gives nothing.
type Grant struct {
	Pos         Pos
	Rules       []GrantedRule // at least one
	Platforms   []string      // of Platforms
	Names       []string
	Images      []string // "sha256:" and lower-case hex
	Namespaces  []string
	Pods        []string
	Labels      map[string]string
	Annotations map[string]string
}

// GrantedRule names a rule, of this file or of another that is merged with it.
type GrantedRule struct {
	Name string
	Pos  Pos
}

// Platforms lists what starts containers; "oci" is a runtime that is called by
// hand.
func Platforms() []string { return []string{"containerd", "crio", "docker", "oci", "podman"} }

// Unconfineds lists what can be done with a container that has no seccomp
// profile.
func Unconfineds() []string { return []string{"refuse", "harden", "allow"} }

// AskPrefix begins the keys of labels and annotations with which a container
// asks for rules. They are no conditions: anybody can ask.
const AskPrefix = "io.afalg-policy."
