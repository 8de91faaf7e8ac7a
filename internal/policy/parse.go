package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// The limits of a policy file. The numbers of rules and of grants hold for what
// includes bring together as well.
const (
	MaxSize   = 1 << 20 // bytes
	MaxRules  = 10_000
	MaxGrants = 10_000
)

// maxDepth is more than twice the depth of a policy.
const maxDepth = 16

// Parse reads one policy file; file is its name in positions. It is strict:
// what it does not know is an error. The error is an ErrorList that holds every
// fault of the file, or the one that stops the reading. Warnings come with a
// valid policy and with a faulty one.
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
	docs, err := documents(src)
	switch {
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

// documents reads the first documents of a file, two at most.
func documents(src []byte) (docs []*yaml.Node, err error) {
	// The parser is not ours, and what it reads may come from anybody.
	defer func() {
		if r := recover(); r != nil {
			docs, err = nil, fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	limits := loaderlimits.New(loaderlimits.DepthFunc(func(depth int, _ *loaderlimits.DepthContext) error {
		if depth > maxDepth {
			return errors.New("nested deeper than any policy")
		}
		return nil
	}))
	loader, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(limits))
	if err != nil {
		return nil, err
	}
	for len(docs) < 2 {
		var n yaml.Node
		if err := loader.Load(&n); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		docs = append(docs, &n)
	}
	return docs, nil
}

// syntaxError reports what the YAML parser says, at the place that it means.
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

// refuse reports the parts of YAML by which a file can say something else than
// what its lines show: anchors, aliases, merge keys and tags.
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
