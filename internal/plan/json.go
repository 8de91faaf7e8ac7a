package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// document is a plan in the words of the policy file. Rules, grants and entries
// name their keys themselves.
type document struct {
	Version int           `json:"version"`
	Name    string        `json:"name,omitempty"`
	Digest  string        `json:"digest,omitempty"`
	Deny    denyDocument  `json:"deny"`
	Allow   []policy.Rule `json:"allow"`
	// Containers is left out of the digest where it says what holds anyway.
	Containers *containersDocument `json:"containers,omitempty"`
	ExpectOpen []policy.Expected   `json:"expect-open,omitempty"`
}

type denyDocument struct {
	SocketErrno    string                `json:"socket-errno"`
	BindErrno      string                `json:"bind-errno"`
	Families       []string              `json:"families"`
	Sockets        []policy.Socket       `json:"sockets,omitempty"`
	SocketOptions  []policy.SocketOption `json:"socket-options,omitempty"`
	UserNamespaces bool                  `json:"user-namespaces,omitempty"`
	ZeroCopy       policy.Choice         `json:"zero-copy,omitempty"`
}

type containersDocument struct {
	Unconfined Unconfined     `json:"unconfined"`
	Grants     []policy.Grant `json:"grants"`
}

const version = 1

// MarshalJSON writes the plan with the keys of the policy file, and with the
// digest and the position of each rule and grant added.
func (p *Plan) MarshalJSON() ([]byte, error) {
	doc := p.document()
	doc.Name, doc.Digest = p.Name, p.Digest
	doc.Containers = p.containersDocument()
	return json.Marshal(doc)
}

// digest is taken of what the plan means, wherever it stands. Go's JSON encoding
// is canonical enough: fields in their order, map keys sorted, no white space.
func digest(p *Plan) string {
	doc := p.document()
	for i := range doc.Allow {
		doc.Allow[i].Pos = policy.Pos{}
	}
	for i := range doc.ExpectOpen {
		doc.ExpectOpen[i].Pos = policy.Pos{}
	}
	if doc.Containers != nil {
		for i := range doc.Containers.Grants {
			doc.Containers.Grants[i].Pos = policy.Pos{}
		}
	}
	text, err := json.Marshal(doc)
	if err != nil { // strings, lists and maps of them always encode
		return ""
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// document holds what the plan means, in copies of its lists.
func (p *Plan) document() document {
	doc := document{
		Version: version,
		Deny: denyDocument{
			SocketErrno: p.SocketErrno.Name, BindErrno: p.BindErrno.Name, Families: []string{}, Sockets: p.Sockets,
			SocketOptions: p.SocketOptions, UserNamespaces: p.UserNamespaces, ZeroCopy: p.ZeroCopy,
		},
		Allow:      append([]policy.Rule{}, p.Rules...),
		ExpectOpen: slices.Clone(p.ExpectOpen),
	}
	for _, f := range p.Families {
		doc.Deny.Families = append(doc.Deny.Families, f.Name)
	}
	if p.Unconfined.orRefuse() != Refuse || len(p.Grants) > 0 {
		doc.Containers = p.containersDocument()
	}
	return doc
}

func (p *Plan) containersDocument() *containersDocument {
	return &containersDocument{p.Unconfined.orRefuse(), append([]policy.Grant{}, p.Grants...)}
}
