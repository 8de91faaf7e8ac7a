package profile

import (
	"errors"
	"fmt"
	"math"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// The limits of a text in YAML. etcd keeps no larger object, and none is as deep.
const (
	maxYAML      = 2 << 20
	maxYAMLDepth = 32
)

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
	text, places, err := yamltext.JSON(root)
	if err != nil {
		return nil, err
	}
	t := &Text{JSON: text, yaml: places}
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
