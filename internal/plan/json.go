package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// document is a plan in the words of the policy file.
type document struct {
	Version int            `json:"version"`
	Name    string         `json:"name,omitempty"`
	Digest  string         `json:"digest,omitempty"`
	Deny    denyDocument   `json:"deny"`
	Allow   []ruleDocument `json:"allow"`
	// Containers is left out of the digest where it says what holds anyway.
	Containers *containersDocument `json:"containers,omitempty"`
}

type denyDocument struct {
	SocketErrno string   `json:"socket-errno"`
	BindErrno   string   `json:"bind-errno"`
	Families    []string `json:"families"`
}

type ruleDocument struct {
	Rule         string                  `json:"rule"`
	Position     string                  `json:"position,omitempty"`
	Anyone       bool                    `json:"anyone,omitempty"`
	Binaries     []binaryDocument        `json:"binaries,omitempty"`
	Users        []string                `json:"users,omitempty"`
	Capabilities []string                `json:"capabilities,omitempty"`
	Units        []string                `json:"units,omitempty"`
	Algorithms   map[afalg.Type][]string `json:"algorithms"`
}

type binaryDocument struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"`
}

type containersDocument struct {
	Unconfined Unconfined      `json:"unconfined"`
	Grants     []grantDocument `json:"grants"`
}

type grantDocument struct {
	Position    string            `json:"position,omitempty"`
	Rules       []string          `json:"rules"`
	Platforms   []string          `json:"platforms,omitempty"`
	Names       []string          `json:"names,omitempty"`
	Images      []string          `json:"images,omitempty"`
	Namespaces  []string          `json:"namespaces,omitempty"`
	Pods        []string          `json:"pods,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const version = 1

// MarshalJSON writes the plan with the keys of the policy file, and with the
// digest and the position of each rule and grant added.
func (p *Plan) MarshalJSON() ([]byte, error) {
	doc := p.document()
	doc.Name, doc.Digest = p.Name, p.Digest
	for i, r := range p.Rules {
		doc.Allow[i].Position = r.Pos.String()
	}
	doc.Containers = p.containersDocument()
	for i, g := range p.Grants {
		doc.Containers.Grants[i].Position = g.Pos.String()
	}
	return json.Marshal(doc)
}

// digest is taken of what the plan means. Go's JSON encoding is canonical
// enough: fields in their order, map keys sorted, no white space.
func digest(p *Plan) string {
	text, err := json.Marshal(p.document())
	if err != nil { // strings, lists and maps of them always encode
		return ""
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// document holds what the plan means and nothing else.
func (p *Plan) document() document {
	doc := document{
		Version: version,
		Deny:    denyDocument{p.SocketErrno.Name, p.BindErrno.Name, []string{}},
		Allow:   make([]ruleDocument, 0, len(p.Rules)),
	}
	for _, f := range p.Families {
		doc.Deny.Families = append(doc.Deny.Families, f.Name)
	}
	for _, r := range p.Rules {
		doc.Allow = append(doc.Allow, ruleDocumentOf(r))
	}
	if p.Unconfined.orRefuse() != Refuse || len(p.Grants) > 0 {
		doc.Containers = p.containersDocument()
	}
	return doc
}

func (p *Plan) containersDocument() *containersDocument {
	doc := &containersDocument{p.Unconfined.orRefuse(), make([]grantDocument, 0, len(p.Grants))}
	for _, g := range p.Grants {
		doc.Grants = append(doc.Grants, grantDocument{
			Rules:       grantedNames(g),
			Platforms:   g.Platforms,
			Names:       g.Names,
			Images:      g.Images,
			Namespaces:  g.Namespaces,
			Pods:        g.Pods,
			Labels:      g.Labels,
			Annotations: g.Annotations,
		})
	}
	return doc
}

func grantedNames(g policy.Grant) []string {
	names := make([]string, len(g.Rules))
	for i, r := range g.Rules {
		names[i] = r.Name
	}
	return names
}

func ruleDocumentOf(r policy.Rule) ruleDocument {
	doc := ruleDocument{
		Rule:         r.Name,
		Anyone:       r.Anyone,
		Users:        r.Users,
		Capabilities: r.Capabilities,
		Units:        r.Units,
		Algorithms:   map[afalg.Type][]string{},
	}
	for _, b := range r.Binaries {
		doc.Binaries = append(doc.Binaries, binaryDocument{b.Path, b.SHA256})
	}
	for _, a := range r.Algorithms {
		doc.Algorithms[a.Type] = append(doc.Algorithms[a.Type], a.Name)
	}
	return doc
}
