package profile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// Text is a text with a profile in it: JSON, or an object of Kubernetes.
type Text struct {
	JSON   []byte       // the text, or what a text in YAML says
	Root   hujson.Value // of JSON
	Prefix string       // of the profile in Root, as a JSON pointer
	Object string       // namespace and name of the Kubernetes object; "" for any other text

	src  []byte          // as it was written
	yaml yamltext.Places // from JSON to src; nil if they are the same
}

// ReadTexts finds the profiles of a text: one, except in a list or a stream of
// Kubernetes objects. Nobody reads a key that stands twice alike, nor a text
// that is not what it seems to be: both are errors, which begin with line:col.
func ReadTexts(src []byte) ([]*Text, error) {
	if len(src) > jsontext.Max {
		return nil, fmt.Errorf("%d bytes: the limit is %d", len(src), jsontext.Max)
	}
	if err := notOurs(src); err != nil {
		return nil, err
	}
	var roots []*Text
	if isJSON(src) {
		if string(bytes.TrimSpace(src)) == "null" {
			src = []byte("{}") // what Docker and Podman take it for
		}
		root, err := jsontext.Read(src)
		if err != nil {
			return nil, explainSyntax(src, err)
		}
		roots = []*Text{{JSON: src, Root: root, src: src}}
	} else {
		var err error
		if roots, err = readYAML(src); err != nil {
			return nil, err
		}
	}
	for _, t := range roots {
		if err := t.unique(); err != nil {
			return nil, err
		}
	}
	return among(roots, (*Text).profiles)
}

// ReadText is ReadTexts where there is to be one profile.
func ReadText(src []byte) (*Text, error) {
	texts, err := ReadTexts(src)
	if err != nil {
		return nil, err
	}
	if len(texts) > 1 {
		var names []string
		for _, t := range texts {
			names = append(names, t.Object)
		}
		return nil, fmt.Errorf("the text holds %d profiles, %s: give one of them", len(texts), strings.Join(names, ", "))
	}
	return texts[0], nil
}

// isJSON reports whether a text is to be read as JSON. A profile is an object;
// the other values are for the errors.
func isJSON(src []byte) bool {
	text := strings.Trim(string(src[:min(len(src), 4096)]), " \t\r\n")
	return text == "" || strings.ContainsAny(text[:1], `{["`) || text == "null"
}

// unique refuses what decoders read in different ways.
func (t *Text) unique() error {
	err := jsontext.Unique(&t.Root, func(offset int, name string) error { return t.fail(offset, "%w", jsontext.Twice(name)) })
	if err != nil {
		return err
	}
	if _, ok := t.Root.Value.(*hujson.Object); !ok {
		return errors.New("neither a seccomp profile nor a config.json: the JSON text is no object")
	}
	return nil
}

// Position gives an offset in JSON as line and column of the text as it was
// written, both from 1; the column counts characters.
func (t *Text) Position(offset int) (line, column int) {
	if t.yaml != nil {
		return t.yaml.Position(offset)
	}
	return jsontext.Position(t.src, offset)
}

// At gives the place of a value of the profile, named by a JSON pointer, or
// that of the innermost value around it that exists.
func (t *Text) At(path string) (line, column int) {
	path = t.Prefix + path
	v := t.Root.Find(path)
	for v == nil && path != "" {
		path = path[:strings.LastIndexByte(path, '/')]
		v = t.Root.Find(path)
	}
	return t.Position(v.StartOffset)
}

// Errorf makes an error that begins with the place of a value of the profile.
func (t *Text) Errorf(path, format string, args ...any) error {
	line, column := t.At(path)
	return fmt.Errorf("%d:%d: %w", line, column, fmt.Errorf(format, args...))
}

func (t *Text) fail(offset int, format string, args ...any) error {
	line, column := t.Position(offset)
	return fmt.Errorf("%d:%d: %w", line, column, fmt.Errorf(format, args...))
}

// Value is the profile's own value; nil if the text has none there.
func (t *Text) Value() *hujson.Value { return t.Root.Find(t.Prefix) }
