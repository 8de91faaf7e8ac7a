// Package edit changes one value in a JSON or TOML file and keeps every other
// byte: comments, order, indentation and line ends stay those of the file.
//
// A result is read again before it is returned, and must equal the file with
// that one value set; otherwise there is an error, and no result. Errors begin
// with line:col where they have a place.
package edit

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// checkPath refuses a path that no file can hold.
func checkPath(path []string) error {
	if len(path) == 0 {
		return errors.New("no key is named whose value is to be set")
	}
	for _, key := range path {
		if !utf8.ValidString(key) {
			return fmt.Errorf("key %q is not UTF-8", key)
		}
	}
	return nil
}

// byteOrderMarks are those of UTF-8 and of both kinds of UTF-16.
var byteOrderMarks = [][]byte{{0xef, 0xbb, 0xbf}, {0xff, 0xfe}, {0xfe, 0xff}}

// checkText refuses anything but plain text in UTF-8. Decoders silently replace
// other bytes, or take the file for empty.
func checkText(src []byte, limit int) error {
	if len(src) > limit {
		return fmt.Errorf("%d bytes: the limit is %d", len(src), limit)
	}
	for _, mark := range byteOrderMarks {
		if bytes.HasPrefix(src, mark) {
			return fail(src, 0, "a byte order mark: save the file as UTF-8 without one")
		}
	}
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return fail(src, i, "byte 0x%02x: the file is no text in UTF-8", src[i])
		}
		i += n
	}
	return nil
}

// replace replaces src[start:end] by a text; src does not change.
func replace(src []byte, start, end int, text string) []byte {
	return slices.Concat(src[:start], []byte(text), src[end:])
}

func fail(src []byte, offset int, format string, args ...any) error {
	return fmt.Errorf("%s: %w", jsontext.Place(src, offset), fmt.Errorf(format, args...))
}

// lookup finds the value at a path of a decoded file.
func lookup(tree map[string]any, path []string) (value any, ok bool) {
	value = tree
	for _, key := range path {
		table, isTable := value.(map[string]any)
		if !isTable {
			return nil, false
		}
		if value, ok = table[key]; !ok {
			return nil, false
		}
	}
	return value, true
}

// set puts a value into a decoded file. It reports whether the way held only
// tables, or nothing.
func set(tree map[string]any, path []string, value any) bool {
	key, rest := path[0], path[1:]
	if len(rest) == 0 {
		tree[key] = value
		return true
	}
	if tree[key] == nil {
		tree[key] = map[string]any{}
	}
	next, ok := tree[key].(map[string]any)
	return ok && set(next, rest, value)
}

// same compares decoded values; NaN is the same as NaN.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case float64:
		b, ok := b.(float64)
		return ok && (a == b || a != a && b != b)
	default:
		return reflect.DeepEqual(a, b)
	}
}
