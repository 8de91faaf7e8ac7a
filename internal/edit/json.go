package edit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// JSON sets the value at a path of object keys, and keeps every other byte. It
// makes objects that are missing on the way; null counts as missing. An equal
// value stays as it is written. src may be empty or white space.
//
// It refuses comments and trailing commas, which the programs that read such
// files do not accept; a repeated key in an object, and one that differs from a
// wanted key only by case; and anything but an object on the way.
func JSON(src []byte, path []string, value any) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	wanted, err := asDecoded(value)
	if err != nil {
		return nil, fmt.Errorf("the value of %s: %w", strings.Join(path, "."), err)
	}
	if err := checkText(src, jsontext.Max); err != nil {
		return nil, err
	}
	text := orEmptyObject(src)
	d, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	change, err := d.Set(path, value)
	if err != nil {
		return nil, err
	}
	changed := jsontext.Apply(text, change)
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
	text, err := jsontext.Compact(value)
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

// orEmptyObject puts an object into a text that has nothing but white space.
func orEmptyObject(src []byte) []byte {
	switch {
	case len(src) == 0:
		return []byte("{}\n")
	case len(bytes.Trim(src, jsontext.Space)) == 0:
		return replace(src, 0, 0, "{}")
	default:
		return src
	}
}

func parseJSON(src []byte) (*jsontext.Document, error) {
	d, err := jsontext.Parse(src)
	if err != nil {
		if extra := extension(src); extra != nil {
			return nil, extra
		}
		return nil, err
	}
	return d, nil
}

// extension finds an extension of JSON at the first invalid place of src; nil
// if it is something else.
func extension(src []byte) error {
	var syntax *json.SyntaxError
	var any json.RawMessage
	if syntax, _ = json.Unmarshal(src, &any).(*json.SyntaxError); syntax == nil {
		return nil
	}
	offset := int(syntax.Offset) - 1
	before, after := bytes.TrimRight(src[:offset], jsontext.Space), src[offset:]
	switch {
	case bytes.HasPrefix(after, []byte("//")), bytes.HasPrefix(after, []byte("/*")), after[0] == '#':
		return fail(src, offset, "a comment: the programs that read this file accept plain JSON only; remove it")
	case bytes.HasSuffix(before, []byte(",")) && (after[0] == '}' || after[0] == ']'):
		return fail(src, len(before)-1, "a comma before %q: the programs that read this file accept plain JSON only; remove it", after[0])
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
