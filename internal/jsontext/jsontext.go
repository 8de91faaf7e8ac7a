// Package jsontext reads JSON that anybody may have written, within limits and
// with places for errors, and changes single values of it, byte by byte.
//
// Keys are compared as they are written. A text that decoders read in different
// ways is refused.
package jsontext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// Max is how many bytes a text may have; the largest profiles and config.json in
// the wild are below 200 KiB.
const Max = 16 << 20

// maxValues bounds the values of a JSON text, each of which takes some 200 bytes
// once it is read. The largest profiles in the wild have a few thousand.
const maxValues = 1 << 18

// Document is a text in which no object has a key twice.
type Document struct {
	Src  []byte
	Root hujson.Value
}

// Parse reads a document. Errors begin with line:col where they have a place.
func Parse(src []byte) (*Document, error) {
	root, err := Read(src)
	if err != nil {
		return nil, err
	}
	d := &Document{src, root}
	if err := Unique(&d.Root, func(offset int, name string) error { return d.fail(offset, "%w", Twice(name)) }); err != nil {
		return nil, err
	}
	return d, nil
}

// Read parses plain JSON, without the comments and commas that hujson adds. Keys
// may stand twice in it.
func Read(src []byte) (hujson.Value, error) {
	if len(src) > Max {
		return hujson.Value{}, fmt.Errorf("%d bytes of JSON: the limit is %d", len(src), Max)
	}
	if err := NotMarked(src); err != nil {
		return hujson.Value{}, err
	}
	var any json.RawMessage
	if err := json.Unmarshal(src, &any); err != nil {
		return hujson.Value{}, fmt.Errorf("%s: %w", Place(src, offsetOf(err)), err)
	}
	if at := tooMany(src); at >= 0 {
		return hujson.Value{}, fmt.Errorf("%s: more than %d values up to here", Place(src, at), maxValues)
	}
	v, err := hujson.Parse(src)
	if err != nil {
		return hujson.Value{}, fmt.Errorf("reading JSON: %w", err)
	}
	return v, nil
}

// tooMany finds the place at which valid JSON has more values than are read, -1
// if there is none: each value but the first comes after a comma, a colon or
// an opening bracket.
func tooMany(src []byte) int {
	values, quoted := 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ':' || c == '[' || c == '{'):
			if values++; values > maxValues {
				return i
			}
		}
	}
	return -1
}

// Unique refuses two keys of one name in one object. fail makes the error, of
// the offset and the name of the second.
func Unique(v *hujson.Value, fail func(offset int, name string) error) error {
	switch t := v.Value.(type) {
	case *hujson.Object:
		seen := map[string]bool{}
		for i := range t.Members {
			m := &t.Members[i]
			name := nameOf(m)
			if seen[name] {
				return fail(m.Name.StartOffset, name)
			}
			seen[name] = true
			if err := Unique(&m.Value, fail); err != nil {
				return err
			}
		}
	case *hujson.Array:
		for i := range t.Elements {
			if err := Unique(&t.Elements[i], fail); err != nil {
				return err
			}
		}
	}
	return nil
}

// Twice is the error of a key that stands twice.
func Twice(name string) error { return fmt.Errorf("key %q stands twice in one object", name) }

// The marks that editors put before a text.
var marks = []struct{ mark, what, remedy string }{
	{"\xef\xbb\xbf", "a byte order mark", `remove it, as with sed -i '1s/^\xEF\xBB\xBF//' FILE`},
	{"\xff\xfe", "the mark of UTF-16", "save it as UTF-8, as with iconv -f UTF-16 -t UTF-8"},
	{"\xfe\xff", "the mark of UTF-16", "save it as UTF-8, as with iconv -f UTF-16 -t UTF-8"},
}

// NotMarked refuses a text that begins with a mark.
func NotMarked(src []byte) error {
	for _, m := range marks {
		if bytes.HasPrefix(src, []byte(m.mark)) {
			return fmt.Errorf("1:1: the text begins with %s, which container runtimes refuse: %s", m.what, m.remedy)
		}
	}
	return nil
}

// FoldKey maps keys to one name that encoding/json takes for the same: case is
// folded as in strings.EqualFold, so that "ſ" is an "s".
func FoldKey(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

func offsetOf(err error) int {
	if e, ok := err.(*json.SyntaxError); ok {
		return int(e.Offset) - 1
	}
	return 0
}

// Place gives an offset as line:col, both from 1.
func Place(src []byte, offset int) string {
	before := src[:min(max(offset, 0), len(src))]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("%d:%d", line, len(before)-bytes.LastIndexByte(before, '\n'))
}

// Position gives an offset as line and column, both from 1. The column counts
// characters.
func Position(src []byte, offset int) (line, column int) {
	before := src[:min(max(offset, 0), len(src))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// Encode prints as people read profiles: indented, operators unescaped.
func Encode(v any) ([]byte, error) {
	text, err := encode(v, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return append([]byte(text), '\n'), nil
}
