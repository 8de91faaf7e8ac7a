package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/tailscale/hujson"
)

// MaxJSON bounds a profile or a config.json; the largest in the wild are
// below 200 KiB.
const MaxJSON = 16 << 20

// CheckJSON refuses what a decoder would take without a word: duplicate keys,
// where the last one wins, and oversized text. Decoders differ on whether case
// matters in a key, so it does not here.
func CheckJSON(src []byte) error {
	v, err := ReadJSON(src)
	if err != nil {
		return err
	}
	return NoDuplicates(src, &v, FoldKey)
}

// ReadJSON parses plain JSON, without the comments and commas that hujson adds.
func ReadJSON(src []byte) (hujson.Value, error) {
	if len(src) > MaxJSON {
		return hujson.Value{}, fmt.Errorf("%d bytes of JSON: the limit is %d", len(src), MaxJSON)
	}
	var any json.RawMessage
	if err := json.Unmarshal(src, &any); err != nil {
		return hujson.Value{}, fmt.Errorf("%s: %w", Place(src, offsetOf(err)), err)
	}
	v, err := hujson.Parse(src)
	if err != nil {
		return hujson.Value{}, fmt.Errorf("reading JSON: %w", err)
	}
	return v, nil
}

// NoDuplicates refuses two keys in one object for which same returns one name.
func NoDuplicates(src []byte, v *hujson.Value, same func(string) string) error {
	switch t := v.Value.(type) {
	case *hujson.Object:
		seen := map[string]bool{}
		for i := range t.Members {
			m := &t.Members[i]
			name := m.Name.Value.(hujson.Literal).String()
			if seen[same(name)] {
				return fmt.Errorf("%s: key %q stands twice in one object", Place(src, m.Name.StartOffset), name)
			}
			seen[same(name)] = true
			if err := NoDuplicates(src, &m.Value, same); err != nil {
				return err
			}
		}
	case *hujson.Array:
		for i := range t.Elements {
			if err := NoDuplicates(src, &t.Elements[i], same); err != nil {
				return err
			}
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

// EncodeJSON prints as people read profiles: indented, operators unescaped.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return b.Bytes(), nil
}
