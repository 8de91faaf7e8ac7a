// Package policy reads the policy file. It is strict, reports every error at
// once, and keeps the position of each item.
package policy

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Pos is a place in a policy file; lines and columns count from 1.
type Pos struct {
	File      string
	Line, Col int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// MarshalText writes what String says.
func (p Pos) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// The types of a policy name their keys in a policy file. Format, the digest and
// the JSON of a plan, and the JSON Schema follow them; a key without "omitempty"
// or "omitzero" must stand in the file.

// Policy is one policy file, validated, its includes not yet resolved.
type Policy struct {
	Name       string     `json:"name"`
	File       string     `json:"-"` // as named by the user
	Include    []Include  `json:"include,omitempty"`
	Deny       Deny       `json:"deny,omitzero"`
	Rules      []Rule     `json:"allow,omitempty"`
	Containers Containers `json:"containers,omitzero"`
	ExpectOpen []Expected `json:"expect-open,omitempty"`
}

// Expected names processes for which verify --all expects AF_ALG to be open. It
// changes the findings there, and no enforcement. Every given condition must
// hold. Parse returns no entry without a condition; such an entry holds for
// nobody.
type Expected struct {
	Pos               Pos      `json:"position,omitzero" jsonschema:"-"`
	Reason            string   `json:"reason"`
	OutsideContainers bool     `json:"outside-containers,omitempty"` // every process that is in no container
	Units             []string `json:"units,omitempty"`              // as in a rule
	Binaries          []string `json:"binaries,omitempty"`           // paths
}

// BuiltinPrefix begins the name of a shipped policy.
const BuiltinPrefix = "builtin:"

// Include names another policy: "builtin:NAME" or a path relative to the file
// that names it.
type Include struct {
	Name string
	Pos  Pos
}

func (i Include) String() string { return i.Name }

// Deny holds what is denied besides bind, and how. An errno is a symbolic
// name ("EAFNOSUPPORT"), or empty where the file does not say.
type Deny struct {
	SocketErrno string   `json:"socket-errno,omitempty"`
	BindErrno   string   `json:"bind-errno,omitempty"`
	Presets     []Preset `json:"presets,omitempty"`
	Families    []Family `json:"families,omitempty"`
	// Sockets, SocketOptions and UserNamespaces are denied classes besides whole
	// families.
	Sockets        []Socket       `json:"sockets,omitempty"`
	SocketOptions  []SocketOption `json:"socket-options,omitempty"`
	UserNamespaces bool           `json:"user-namespaces,omitempty"` // nobody makes one
	ZeroCopy       Choice         `json:"zero-copy,omitempty"`
}

// Preset names a set of denied classes.
type Preset struct {
	Name string
	Pos  Pos
}

func (p Preset) String() string { return p.Name }

// MarshalText writes the name.
func (p Preset) MarshalText() ([]byte, error) { return []byte(p.Name), nil }

// Socket is a class of sockets, by the kernel's names. What is not given is any.
type Socket struct {
	Family   string `json:"family"`
	Type     string `json:"type,omitempty"`
	Protocol string `json:"protocol,omitempty"` // a name, or a decimal number that has none
	Pos      Pos    `json:"-"`
}

// Class returns the class in numbers. A socket that Parse did not return may be
// the zero class.
func (s Socket) Class() afalg.Sockets {
	var c afalg.Sockets
	c.Family, _ = afalg.FamilyByName(s.Family)
	c.Type, _ = afalg.SocketTypeByName(s.Type)
	if s.Protocol != "" {
		c.HasProtocol = true
		c.Protocol = numberOf(s.Protocol, func(name string) (uint32, bool) { return afalg.ProtocolByName(c.Family, name) })
	}
	return c
}

// SocketOption is an option of setsockopt(2), by the kernel's names.
type SocketOption struct {
	Level  string `json:"level"`  // a name, or a decimal number that has none
	Option string `json:"option"` // the same
	Pos    Pos    `json:"-"`
}

// Numbers returns the option in numbers.
func (o SocketOption) Numbers() afalg.SocketOption {
	level := numberOf(o.Level, afalg.OptionLevelByName)
	option := numberOf(o.Option, func(name string) (uint32, bool) { return afalg.SocketOptionByName(level, name) })
	return afalg.SocketOption{Level: level, Option: option}
}

// numberOf reads a name, or a number.
func numberOf(text string, byName func(string) (uint32, bool)) uint32 {
	if n, ok := byName(text); ok {
		return n
	}
	n, _ := strconv.ParseUint(text, 10, 31)
	return uint32(n)
}

// Choice is true or false. The zero value means that the file does not say.
type Choice string

// The words of a choice, as they stand in a file.
const (
	Yes Choice = "true"
	No  Choice = "false"
)

// MarshalJSON writes a boolean.
func (c Choice) MarshalJSON() ([]byte, error) {
	if c == Yes || c == No {
		return []byte(c), nil
	}
	return json.Marshal(string(c))
}

// GapZeroCopy is the name of the gap of a target that cannot refuse zero-copy.
// No rule has it, since --accept takes both.
const GapZeroCopy = "zero-copy"

// The names of the gaps of targets that cannot close a class of sockets that is
// narrower than a family, a socket option, or user namespaces. No rule has them.
const (
	GapSockets        = "sockets"
	GapSocketOptions  = "socket-options"
	GapUserNamespaces = "user-namespaces"
)

// Family is a further socket family to close: its constant's name and number.
type Family struct {
	Name   string
	Number uint32
	Pos    Pos
}

func (f Family) String() string { return f.Name }

// Rule is one allow entry. Every condition that is given must hold; within a
// condition one match is enough. A rule has at least one condition, or says
// Anyone; one with neither is no rule that Parse returns, and matches nobody.
type Rule struct {
	Name         string     `json:"rule"`
	Pos          Pos        `json:"position,omitzero" jsonschema:"-"`
	Anyone       bool       `json:"anyone,omitempty"` // there are no conditions, on purpose
	Binaries     []Binary   `json:"binaries,omitempty"`
	StrictExec   bool       `json:"strict-exec,omitempty"`  // nobody else may steer the binary; only with Binaries
	Users        []string   `json:"users,omitempty"`        // a name, or a decimal uid
	Capabilities []string   `json:"capabilities,omitempty"` // "CAP_NET_ADMIN"
	Units        []string   `json:"units,omitempty"`        // "iwd.service"; the template "x@.service" stands for its instances
	Algorithms   Algorithms `json:"algorithms,omitempty"`   // by type, then in the order of the file
	// What deny closes, and the rule allows. A rule has one of these or an algorithm.
	Sockets        []Socket       `json:"sockets,omitempty"`
	SocketOptions  []SocketOption `json:"socket-options,omitempty"`
	UserNamespaces bool           `json:"user-namespaces,omitempty"`
}

// Conditions names the conditions that the rule has, by their keys.
func (r Rule) Conditions() (keys []string) {
	for _, c := range []struct {
		key string
		n   int
	}{{"binaries", len(r.Binaries)}, {"users", len(r.Users)}, {"capabilities", len(r.Capabilities)}, {"units", len(r.Units)}} {
		if c.n > 0 {
			keys = append(keys, c.key)
		}
	}
	return keys
}

// OpensAlgorithms reports whether the rule allows an algorithm. One that does not
// opens AF_ALG to nobody.
func (r Rule) OpensAlgorithms() bool { return len(r.Algorithms) > 0 }

// OpensClasses reports whether the rule allows a denied class.
func (r Rule) OpensClasses() bool {
	return len(r.Sockets) > 0 || len(r.SocketOptions) > 0 || r.UserNamespaces
}

// Binary is an executable, by the path that the kernel shows for it.
type Binary struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // lower-case hex, or empty
	Pos    Pos    `json:"-"`
}

// Algorithm is an allowed algorithm with its place. Its name may be
// afalg.AnyName, which opens the whole type.
type Algorithm struct {
	afalg.Algorithm
	Pos Pos
}

// Algorithms is a list of them, in a file a mapping of types to names.
type Algorithms []Algorithm

// MarshalJSON writes the names by type, those of one type in their order.
func (all Algorithms) MarshalJSON() ([]byte, error) { return json.Marshal(all.byType()) }

func (all Algorithms) byType() map[afalg.Type][]string {
	names := map[afalg.Type][]string{}
	for _, a := range all {
		names[a.Type] = append(names[a.Type], a.Name)
	}
	return names
}

// Containers says how containers are started.
type Containers struct {
	// Unconfined is one of Unconfineds, or empty where the file does not say.
	Unconfined string  `json:"unconfined,omitempty"`
	Grants     []Grant `json:"grants,omitempty"`
}

// Grant gives rules to containers, or the sockets of 32-bit programs. Every
// given condition must hold; within a list one match is enough, within a map
// each entry must match. A grant has at least one condition besides Platforms.
// Parse returns no grant without one; such a grant gives nothing.
type Grant struct {
	Pos         Pos               `json:"position,omitzero" jsonschema:"-"`
	Rules       []GrantedRule     `json:"rules,omitempty"`      // none only if there is Socketcall
	Socketcall  string            `json:"socketcall,omitempty"` // one of socketcalls, or empty
	DecidedBy   string            `json:"decided-by,omitempty"` // one of decidedBys; empty is the broker
	Platforms   []string          `json:"platforms,omitempty"`  // of Platforms
	Builds      bool              `json:"builds,omitempty"`     // condition: a step of an image build
	Names       []string          `json:"names,omitempty"`
	Images      []string          `json:"images,omitempty"` // "sha256:" and lower-case hex
	Namespaces  []string          `json:"namespaces,omitempty"`
	Pods        []string          `json:"pods,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// GrantedRule names a rule, of this file or of another that is merged with it.
type GrantedRule struct {
	Name string
	Pos  Pos
}

func (r GrantedRule) String() string { return r.Name }

// MarshalText writes the name.
func (r GrantedRule) MarshalText() ([]byte, error) { return []byte(r.Name), nil }

// Platforms lists what starts containers; "oci" is a runtime that is called by
// hand.
func Platforms() []string { return []string{"containerd", "crio", "docker", "oci", "podman"} }

// Unconfineds lists the treatments of a container without a seccomp profile, the
// strictest first.
func Unconfineds() []string { return []string{"refuse", "harden", "lsm", "allow"} }

// SocketcallBroker leaves socketcall, by which 32-bit programs make all their
// sockets, to the agent.
const SocketcallBroker = "broker"

// socketcalls lists the values that a grant can have for socketcall. Keeping it
// as it is would open AF_ALG whole, and no grant does that.
func socketcalls() []string { return []string{SocketcallBroker} }

// DecidedByLSM leaves the rules of a container to the kernel half.
const DecidedByLSM = "lsm"

// decidedBys lists the values that a grant can have for decided-by. The broker
// decides unless a grant says so.
func decidedBys() []string { return []string{DecidedByLSM} }

// GapDecidedByLSM is the name of the gap of such a container. No rule has it.
const GapDecidedByLSM = "decided-by-lsm"

// askPrefix begins the keys of labels and annotations with which a container
// asks for rules. They are no conditions: anybody can ask.
const askPrefix = "io.afalg-policy."
