// Package yamltext reads texts in YAML that anybody may have written: into
// nodes, with a bound on the cost, and without a panic of the parser.
package yamltext

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// MaxParts bounds the size of a parsed text: the library uses 2.5 KB for each
// entry of a list in brackets, 400 bytes for one on a line of its own. The
// largest legal policy, with every rule complete, has four fifths of it.
const MaxParts = 1 << 17

// ErrTooManyParts is the error for a text with more parts.
var ErrTooManyParts = fmt.Errorf("too many parts: its lines, and twice its commas and opening brackets, are more than %d", MaxParts)

// Documents reads up to most documents of a text. what names the text in the
// error for an excessive depth. An error of the parser is a *yaml.LoadError.
func Documents(src []byte, what string, depth, most int) (documents []*yaml.Node, err error) {
	if parts(src) > MaxParts {
		return nil, ErrTooManyParts
	}
	defer func() {
		if r := recover(); r != nil {
			documents, err = nil, fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	limits := loaderlimits.New(loaderlimits.DepthFunc(func(d int, _ *loaderlimits.DepthContext) error {
		if d > depth {
			return errors.New("nested deeper than any " + what)
		}
		return nil
	}))
	loader, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(limits))
	if err != nil {
		return nil, err
	}
	for len(documents) < most {
		var n yaml.Node
		if err := loader.Load(&n); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		documents = append(documents, &n)
	}
	return documents, nil
}

// parts returns at least the number of nodes of a text, without parsing it.
func parts(src []byte) (n int) {
	for _, c := range src {
		switch c {
		case '\n':
			n++
		case ',', '[', '{':
			n += 2
		}
	}
	return n
}
