package yamltext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Places leads from offsets in the JSON text that a YAML text says to places
// in the YAML text; the offsets ascend.
type Places []place

type place struct{ offset, line, column int }

// Position gives the line and the column of what stands at an offset, both from 1.
func (p Places) Position(offset int) (line, column int) {
	i, found := slices.BinarySearchFunc(p, offset, func(p place, at int) int { return p.offset - at })
	if !found {
		i--
	}
	if i < 0 {
		return 1, 1
	}
	return p[i].line, p[i].column
}

// JSON writes what a node says as JSON, and where it says it. What JSON cannot
// say, and what readers of YAML take for different things, is an error that begins with
// line:col: anchors, aliases, tags of one's own, keys that are no words.
func JSON(n *yaml.Node) ([]byte, Places, error) {
	var w jsonWriter
	err := w.value(n)
	return w.text.Bytes(), w.places, err
}

// jsonWriter writes YAML nodes as JSON.
type jsonWriter struct {
	text   bytes.Buffer
	places Places
}

func (w *jsonWriter) value(n *yaml.Node) error {
	w.places = append(w.places, place{w.text.Len(), n.Line, n.Column})
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
