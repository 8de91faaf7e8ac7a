package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// The limits of a text in YAML. etcd keeps no larger object, and none is as deep.
const (
	maxYAML      = 2 << 20
	maxYAMLDepth = 32
)

// yamlMap leads from offsets in the JSON text that a YAML text says to places
// in the YAML text; the offsets ascend.
type yamlMap []yamlPlace

type yamlPlace struct{ offset, line, column int }

func (m yamlMap) position(offset int) (line, column int) {
	i, found := slices.BinarySearchFunc(m, offset, func(p yamlPlace, at int) int { return p.offset - at })
	if !found {
		i--
	}
	if i < 0 {
		return 1, 1
	}
	return m[i].line, m[i].column
}

// readYAML reads each document of a text.
func readYAML(src []byte) ([]*Text, error) {
	if len(src) > maxYAML {
		return nil, fmt.Errorf("%d bytes of YAML: the limit is %d", len(src), maxYAML)
	}
	documents, err := yamltext.Documents(src, "profile", maxYAMLDepth, math.MaxInt)
	switch {
	case err == yamltext.ErrTooManyParts:
		return nil, fmt.Errorf("the YAML text has %w", err)
	case err != nil:
		return nil, notText(err)
	}
	var texts []*Text
	for _, n := range documents {
		root := n.Content[0]
		if root.Tag == "!!null" { // what stands behind a last "---"
			continue
		}
		t, err := textOf(root)
		if err != nil {
			return nil, err
		}
		texts = append(texts, t)
	}
	return texts, nil
}

// notText says that a text is neither of the languages that are read.
func notText(err error) error {
	line, column, why := 1, 1, err.Error()
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, column, why = max(e.Mark.Line, 1), max(e.Mark.Column, 1), e.Message
	}
	return fmt.Errorf("%d:%d: neither JSON nor YAML: %s", line, column, why)
}

// textOf writes what a document says as JSON, and keeps where it says it.
func textOf(root *yaml.Node) (*Text, error) {
	if !isObject(root) {
		return nil, fmt.Errorf("%d:%d: this is no profile: profiles are JSON, or objects of Kubernetes with kind: SeccompProfile", root.Line, root.Column)
	}
	var w jsonWriter
	if err := w.value(root); err != nil {
		return nil, err
	}
	t := &Text{JSON: w.text.Bytes(), yaml: w.places}
	var err error
	if t.Root, err = jsontext.Read(t.JSON); err != nil {
		return nil, fmt.Errorf("reading YAML: %w", err)
	}
	return t, nil
}

// isObject reports whether a document says of what kind it is. Without that, a
// text in YAML is for another program.
func isObject(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "kind" {
			return true
		}
	}
	return false
}

// jsonWriter writes YAML nodes as JSON.
type jsonWriter struct {
	text   bytes.Buffer
	places yamlMap
}

func (w *jsonWriter) value(n *yaml.Node) error {
	w.places = append(w.places, yamlPlace{w.text.Len(), n.Line, n.Column})
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("%d:%d: an anchor or an alias: write the text itself there", n.Line, n.Column)
	case n.Kind == yaml.MappingNode:
		return w.list(n, '{', '}', 2)
	case n.Kind == yaml.SequenceNode:
		return w.list(n, '[', ']', 1)
	}
	return w.scalar(n)
}

// list writes the nodes of a mapping, or of a sequence. Places ascend with the
// offsets, since commas and colons are nobody's.
func (w *jsonWriter) list(n *yaml.Node, open, end byte, each int) error {
	w.text.WriteByte(open)
	for i, c := range n.Content {
		switch {
		case each == 2 && i%2 == 1:
			w.text.WriteByte(':')
		case i > 0:
			w.text.WriteByte(',')
		}
		if each == 2 && i%2 == 0 && (c.Kind != yaml.ScalarNode || c.Tag != "!!str") {
			return fmt.Errorf("%d:%d: a key must be a word", c.Line, c.Column)
		}
		if err := w.value(c); err != nil {
			return err
		}
	}
	w.text.WriteByte(end)
	return nil
}

// plainTags are those that a text gets without writing one.
var plainTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null"}

func (w *jsonWriter) scalar(n *yaml.Node) error {
	var v any
	if !slices.Contains(plainTags, n.Tag) {
		return fmt.Errorf("%d:%d: the tag %q: no object of Kubernetes has one", n.Line, n.Column, n.Tag)
	}
	if n.Tag == "!!str" {
		v = n.Value
	} else if err := n.Decode(&v); err != nil {
		return fmt.Errorf("%d:%d: %w", n.Line, n.Column, err)
	}
	text, err := json.Marshal(v)
	if err != nil { // .inf and .nan
		return fmt.Errorf("%d:%d: %q is no value that JSON knows", n.Line, n.Column, n.Value)
	}
	w.text.Write(text)
	return nil
}
