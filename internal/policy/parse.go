package policy

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// The limits of a policy file. The numbers of rules and of grants also hold for
// a policy with its includes.
const (
	MaxSize   = 1 << 20 // bytes
	MaxRules  = 10_000
	MaxGrants = 10_000
	// MaxExpected bounds the entries of expect-open.
	MaxExpected = 1000
)

// maxDepth is more than twice the depth of a policy.
const maxDepth = 16

// Parse reads one policy file; file is its name in positions. It is strict:
// anything unknown is an error. The error is an ErrorList with every fault of
// the file, or the one that stops the reading. Both a valid policy and a faulty
// one may have warnings.
func Parse(file string, src []byte) (*Policy, []Warning, error) {
	d := &decoder{file: file}
	root := d.load(src)
	if root == nil {
		return nil, nil, sorted(d.errs)
	}
	p := d.document(root)
	slices.SortStableFunc(d.warnings, func(a, b Warning) int { return comparePos(a.Pos, b.Pos) })
	if len(d.errs) > 0 {
		return nil, d.warnings, sorted(d.errs)
	}
	return p, d.warnings, nil
}

// load reads the single document of a file, or reports why there is none.
func (d *decoder) load(src []byte) *yaml.Node {
	if len(src) > MaxSize {
		d.errorAt(1, 1, "the file has %d bytes; a policy has %d at most: split it with include", len(src), MaxSize)
		return nil
	}
	if line, col, err := checkText(src); err != nil {
		d.errorAt(line, col, "%v", err)
		return nil
	}
	docs, err := yamltext.Documents(src, "policy", maxDepth, 2)
	switch {
	case err == yamltext.ErrTooManyParts:
		d.errorAt(1, 1, "the file has %v; split it with include", err)
		return nil
	case err != nil:
		d.syntaxError(src, err)
		return nil
	case len(docs) == 0:
		d.errorAt(1, 1, `the file is empty; a policy begins with "version: 1"`)
		return nil
	case len(docs) > 1:
		d.errorf(docs[1], "a second document begins here; a policy file holds one")
		return nil
	}
	root := docs[0].Content[0]
	d.refuse(root)
	return root
}

// syntaxError reports the YAML parser's error, at the place that it means.
func (d *decoder) syntaxError(src []byte, err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		d.errorAt(1, 1, "not YAML: %v", err)
		return
	}
	at, text := e.Mark, "not YAML: "+e.Message
	if c := e.ContextMark; e.ContextMsg != "" && c.Line > 0 && c != at {
		text += fmt.Sprintf(" (%s that begins at %d:%d)", e.ContextMsg, c.Line, c.Column)
	}
	switch {
	case e.ContextMsg == "while scanning an alias":
		text += `; write "*" in quotes`
	case at.Index < len(src) && src[at.Index] == '\t':
		text += "; indent with spaces, not with tabs"
	}
	d.errorAt(max(at.Line, 1), max(at.Column, 1), "%s", text)
}

// refuse reports the parts of YAML by which a file can mean something else than
// its lines show: anchors, aliases, merge keys and tags.
func (d *decoder) refuse(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.errorf(n, "the alias %s stands for text elsewhere; write that text here", quote("*"+n.Value))
		return
	case n.Anchor != "":
		d.errorf(n, "the anchor %s: a policy has none, so that each line means what it shows", quote("&"+n.Anchor))
	case isTagged(n):
		d.errorf(n, "the tag %s: a policy has none; quote a value that must be text", quote(n.Tag))
	case n.Tag == mergeTag:
		d.errorf(n, `the merge key "<<": a policy has none, so that each line means what it shows`)
	}
	for _, c := range n.Content {
		d.refuse(c)
	}
}
