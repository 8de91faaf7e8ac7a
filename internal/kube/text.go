package kube

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/tailscale/hujson"
	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// The limits of one document in YAML. etcd keeps no larger object, and none is
// as deep.
const (
	maxYAML      = 2 << 20
	maxYAMLDepth = 32
)

// document is one document of a text, with what leads back to the text as it was
// written.
type document struct {
	json     []byte
	root     hujson.Value // of json
	position func(offset int) (line, column int)
}

// documents reads a text: a value in JSON, or documents in YAML. Those that are no
// objects of Kubernetes are left out, and counted.
func documents(src []byte) (all []*document, foreign int, err error) {
	if len(src) > jsontext.Max {
		return nil, 0, fmt.Errorf("%d bytes: the limit is %d", len(src), jsontext.Max)
	}
	if err := jsontext.NotMarked(src); err != nil {
		return nil, 0, err
	}
	if at := bytes.IndexByte(src, 0); at >= 0 {
		return nil, 0, fmt.Errorf("%s: a NUL byte: this is no text in UTF-8", jsontext.Place(src, at))
	}
	if isJSON(src) {
		d := &document{json: src, position: newRuler(src).position}
		if err := d.parse(); err != nil {
			return nil, 0, template(src, err)
		}
		if !d.isObject() {
			return nil, 1, nil
		}
		return []*document{d}, 0, nil
	}
	parts, err := split(src)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range parts {
		found, others, err := p.documents()
		if err != nil {
			return nil, 0, template(src, err)
		}
		all, foreign = append(all, found...), foreign+others
	}
	return all, foreign, nil
}

// isJSON reports whether a text is to be read as JSON.
func isJSON(src []byte) bool {
	text := bytes.TrimLeft(src, " \t\r\n")
	return len(text) > 0 && (text[0] == '{' || text[0] == '[')
}

// template says what to do about a text that Helm or another engine makes into
// YAML. Braces alone are no fault: strings hold them for programs.
func template(src []byte, err error) error {
	at := bytes.Index(src, []byte("{{"))
	if at < 0 {
		return err
	}
	return fmt.Errorf("%s: a template, which is no manifest yet: render it first, as with helm template CHART | afalg-policy verify - (%w)", jsontext.Place(src, at), err)
}

// part is a text between separators, which begins at a line of the whole.
type part struct {
	src  []byte
	line int // from 0
}

// split cuts at lines that begin with three hyphens, as kubectl does before it
// reads any YAML. It drops the rest of such a line, which a reader of YAML takes for
// content.
func split(src []byte) (parts []part, err error) {
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(src); line++ {
		end := len(src)
		if i := bytes.IndexByte(src[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if rest, is := bytes.CutPrefix(src[at:end], []byte("---")); is {
			if text := bytes.TrimSpace(rest); len(text) > 0 && (text[0] != '#' || rest[0] == '#') {
				return nil, fmt.Errorf("%d:4: kubectl drops what follows --- in a line, other readers do not: begin a new line", line+1)
			}
			parts = append(parts, part{src[start:at], startLine})
			start, startLine = end, line+1
		}
		at = end
	}
	return append(parts, part{src[start:], startLine}), nil
}

// documents reads a part: one document, unless "..." ends one in it.
func (p part) documents() (all []*document, foreign int, err error) {
	if len(p.src) > maxYAML {
		return nil, 0, fmt.Errorf("%d:1: a document of %d bytes of YAML: the limit is %d", p.line+1, len(p.src), maxYAML)
	}
	nodes, err := yamltext.Documents(p.src, "manifest", maxYAMLDepth, math.MaxInt)
	switch {
	case err == yamltext.ErrTooManyParts:
		return nil, 0, fmt.Errorf("%d:1: the document has %w", p.line+1, err)
	case err != nil:
		return nil, 0, p.notYAML(err)
	}
	for _, n := range nodes {
		p.shift(n)
		root := n.Content[0]
		if root.Tag == "!!null" {
			continue
		}
		d, err := p.document(root)
		if err != nil {
			return nil, 0, err
		}
		if d == nil {
			foreign++
			continue
		}
		all = append(all, d)
	}
	return all, foreign, nil
}

// shift gives nodes the lines that they have in the whole text.
func (p part) shift(n *yaml.Node) {
	n.Line += p.line
	for _, c := range n.Content {
		p.shift(c)
	}
}

func (p part) notYAML(err error) error {
	line, column, why := 1, 1, err.Error()
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, column, why = max(e.Mark.Line, 1), max(e.Mark.Column, 1), e.Message
	}
	return fmt.Errorf("%d:%d: neither JSON nor YAML: %s", p.line+line, column, why)
}

// document reads what a node says; nil if it is no object of Kubernetes. What JSON
// cannot say is no matter in an object that can have no pod in it.
func (p part) document(root *yaml.Node) (*document, error) {
	if root.Kind != yaml.MappingNode || !mentions(root, "kind", 1) && !mentions(root, "<<", 1) {
		return nil, nil
	}
	text, places, err := yamltext.JSON(root)
	if err != nil {
		if !mentions(root, "containers", math.MaxInt) && !mentions(root, "items", 1) && !mentions(root, "<<", math.MaxInt) {
			return nil, nil
		}
		return nil, err
	}
	d := &document{json: text, position: places.Position}
	if err := d.parse(); err != nil {
		return nil, err
	}
	if !d.isObject() {
		return nil, nil
	}
	return d, nil
}

// mentions reports whether a mapping has a key, down to a depth.
func mentions(n *yaml.Node, key string, depth int) bool {
	if depth == 0 {
		return false
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Value == key {
			return true
		}
		if c.Kind != yaml.ScalarNode && mentions(c, key, depth-1) {
			return true
		}
	}
	return false
}

// parse reads the JSON, in which no object may have a key twice: of two, readers
// take different ones.
func (d *document) parse() (err error) {
	if d.root, err = jsontext.Read(d.json); err != nil {
		return err
	}
	return jsontext.Unique(&d.root, func(offset int, name string) error { return d.fail(offset, "%w", jsontext.Twice(name)) })
}

// isObject reports whether the document says of what kind it is.
func (d *document) isObject() bool {
	_, ok := d.root.Value.(*hujson.Object)
	return ok && d.root.Find("/kind") != nil
}

// decode reads the value at a pointer into what into points at. Kubernetes takes no
// key for another that differs in case; other readers do, so that none may stand there.
func (d *document) decode(pointer string, into any) (err error) {
	v := d.root.Find(pointer)
	if v == nil {
		return d.failAt(pointer, "%s is missing", strings.ReplaceAll(strings.TrimPrefix(pointer, "/"), "/", "."))
	}
	jsontext.WalkKeys(v, reflect.TypeOf(into).Elem(), pointer, func(k jsontext.Key) {
		if k.Known() {
			return
		}
		for known := range k.Fields {
			if jsontext.FoldKey(known) == jsontext.FoldKey(k.Name) {
				err = cmp.Or(err, d.fail(k.Offset, "key %q: Kubernetes ignores it, and other programs read it as %q", k.Name, known))
			}
		}
	})
	if err != nil {
		return err
	}
	err = json.Unmarshal(d.json[v.StartOffset:v.EndOffset], into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return d.fail(v.StartOffset+int(wrong.Offset)-1, "%s cannot be a %s", cmp.Or(wrong.Field, "the object"), wrong.Value)
	}
	return err
}

// at is the place of a value, or of the innermost around it that exists.
func (d *document) at(pointer string) Place {
	v := d.root.Find(pointer)
	for v == nil && pointer != "" {
		pointer = pointer[:strings.LastIndexByte(pointer, '/')]
		v = d.root.Find(pointer)
	}
	line, column := d.position(v.StartOffset)
	return Place{line, column}
}

func (d *document) failAt(pointer, format string, args ...any) error {
	p := d.at(pointer)
	return fmt.Errorf("%d:%d: %w", p.Line, p.Column, fmt.Errorf(format, args...))
}

func (d *document) fail(offset int, format string, args ...any) error {
	line, column := d.position(offset)
	return fmt.Errorf("%d:%d: %w", line, column, fmt.Errorf(format, args...))
}
