package edit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// JSON sets the value at a path of object keys, and keeps every other byte.
// Objects that are missing on the way are made; null counts as missing. A value
// that is there already stays as it is written. src may be empty or white
// space.
//
// Refused are comments and trailing commas, which the programs that read such
// files do not take; a key that stands twice in an object, or that differs from
// a wanted one by case alone; and anything but an object on the way.
func JSON(src []byte, path []string, value any) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	wanted, err := asDecoded(value)
	if err != nil {
		return nil, fmt.Errorf("the value of %s: %w", strings.Join(path, "."), err)
	}
	if err := checkText(src, profile.MaxJSON); err != nil {
		return nil, err
	}
	text := orEmptyObject(src)
	root, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	changed, err := Parsed(text, &root, path, value)
	if err != nil {
		return nil, err
	}
	tree, err := decodeJSON(text)
	if err != nil {
		return nil, err
	}
	if old, ok := lookup(tree, path); ok && same(old, wanted) {
		return src, nil
	}
	got, err := decodeJSON(changed)
	if err != nil || !set(tree, path, wanted) || !same(got, tree) {
		return nil, fmt.Errorf("with %s set, the file would not read as it should: set it by hand", strings.Join(path, "."))
	}
	return changed, nil
}

// asDecoded returns a value as it comes back from a file.
func asDecoded(value any) (decoded any, err error) {
	text, err := encode(value, "", "")
	if err != nil {
		return nil, err
	}
	// The encoder writes this for bytes that are not UTF-8, and for nothing else.
	if strings.Contains(strings.ReplaceAll(text, `\\`, ""), `\ufffd`) {
		return nil, fmt.Errorf("%s is not UTF-8", text)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return decoded, d.Decode(&decoded)
}

const jsonSpace = " \t\r\n"

// orEmptyObject puts an object into a text that has nothing but white space.
func orEmptyObject(src []byte) []byte {
	switch {
	case len(src) == 0:
		return []byte("{}\n")
	case len(bytes.Trim(src, jsonSpace)) == 0:
		return replace(src, 0, 0, "{}")
	default:
		return src
	}
}

func parseJSON(src []byte) (hujson.Value, error) {
	root, err := profile.ReadJSON(src)
	if err != nil {
		if extra := extension(src); extra != nil {
			return root, extra
		}
		return root, err
	}
	return root, profile.NoDuplicates(src, &root, strings.Clone)
}

// extension finds what people add to JSON, at the first place where src is
// none; nil if it is something else.
func extension(src []byte) error {
	var syntax *json.SyntaxError
	var any json.RawMessage
	if syntax, _ = json.Unmarshal(src, &any).(*json.SyntaxError); syntax == nil {
		return nil
	}
	offset := int(syntax.Offset) - 1
	before, after := bytes.TrimRight(src[:offset], jsonSpace), src[offset:]
	switch {
	case bytes.HasPrefix(after, []byte("//")), bytes.HasPrefix(after, []byte("/*")), after[0] == '#':
		return fail(src, offset, "a comment: what reads this file takes plain JSON alone; remove it")
	case bytes.HasSuffix(before, []byte(",")) && (after[0] == '}' || after[0] == ']'):
		return fail(src, len(before)-1, "a comma before %q: what reads this file takes plain JSON alone; remove it", after[0])
	default:
		return nil
	}
}

func decodeJSON(src []byte) (tree map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	return tree, nil
}

// Parsed is JSON for a text that was parsed and found free of duplicate keys
// already, as the large ones are that containers wait for. root is the whole
// of src. The result is not read again.
func Parsed(src []byte, root *hujson.Value, path []string, value any) ([]byte, error) {
	t := jsonText{src: src}
	var err error
	if t.root, err = t.object(root, "the file"); err != nil {
		return nil, err
	}
	object := place{Object: t.root, start: root.StartOffset, end: root.EndOffset}
	for i, key := range path {
		rest := path[i+1:]
		m, err := t.member(object.Object, key)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return t.add(object, key, nest(rest, value))
		}
		if len(rest) == 0 || isNull(&m.Value) {
			return t.put(m, nest(rest, value))
		}
		o, err := t.object(&m.Value, strings.Join(path[:i+1], "."))
		if err != nil {
			return nil, err
		}
		object = place{o, m, m.Value.StartOffset, m.Value.EndOffset}
	}
	return nil, checkPath(path)
}

// nest makes the objects on the way to a value.
func nest(path []string, value any) any {
	for i := len(path) - 1; i >= 0; i-- {
		value = map[string]any{path[i]: value}
	}
	return value
}

// Find returns the member of an object with a key, and one whose key differs
// from it by case alone. Programs disagree about the latter: those in Go take
// it, and the last one counts; others pass over it.
func Find(o *hujson.Object, key string) (exact, other *hujson.ObjectMember) {
	for i := range o.Members {
		m := &o.Members[i]
		switch name := m.Name.Value.(hujson.Literal).String(); {
		case name == key:
			exact = m
		case other == nil && strings.EqualFold(name, key):
			other = m
		}
	}
	return exact, other
}

func (t jsonText) member(o *hujson.Object, key string) (*hujson.ObjectMember, error) {
	exact, other := Find(o, key)
	if other != nil {
		return nil, fail(t.src, other.Name.StartOffset,
			"key %s: some programs read it as %q and others do not; rename or remove it", t.src[other.Name.StartOffset:other.Name.EndOffset], key)
	}
	return exact, nil
}

func (t jsonText) object(v *hujson.Value, what string) (*hujson.Object, error) {
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil, fail(t.src, v.StartOffset, "%s is no JSON object", what)
	}
	return o, nil
}

func isNull(v *hujson.Value) bool {
	l, ok := v.Value.(hujson.Literal)
	return ok && l.Kind() == 'n'
}
