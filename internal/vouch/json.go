package vouch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/tailscale/hujson"
)

// value is a JSON text whose keys stand once in each object. Keys are compared
// as they are written: encoding/json would take "name" for "Name".
type value struct{ hujson.Value }

func parse(src []byte) (value, error) {
	v, err := profile.ReadJSON(src)
	if err != nil {
		return value{}, err
	}
	return value{v}, profile.NoDuplicates(src, &v, func(key string) string { return key })
}

// text is the string at a JSON pointer, and "" where there is none.
func (v value) text(pointer string) string {
	found := v.Find(pointer)
	if found == nil {
		return ""
	}
	s, _ := asText(found)
	return s
}

// texts is the object of strings at a JSON pointer; nil where there is none.
func (v value) texts(pointer string) (map[string]string, error) {
	found := v.Find(pointer)
	if found == nil || isNull(found) {
		return nil, nil
	}
	object, ok := found.Value.(*hujson.Object)
	if !ok {
		return nil, fmt.Errorf("%q: not an object", pointer)
	}
	m := make(map[string]string, len(object.Members))
	for i := range object.Members {
		s, ok := asText(&object.Members[i].Value)
		if !ok {
			return nil, fmt.Errorf("%q: not an object of texts", pointer)
		}
		m[object.Members[i].Name.Value.(hujson.Literal).String()] = s
	}
	return m, nil
}

// list is the array of strings at a JSON pointer; what is no string is left out.
func (v value) list(pointer string) []string {
	found := v.Find(pointer)
	if found == nil {
		return nil
	}
	array, ok := found.Value.(*hujson.Array)
	if !ok {
		return nil
	}
	var all []string
	for i := range array.Elements {
		if s, ok := asText(&array.Elements[i]); ok {
			all = append(all, s)
		}
	}
	return all
}

func asText(v *hujson.Value) (string, bool) {
	l, ok := v.Value.(hujson.Literal)
	if !ok || l.Kind() != '"' {
		return "", false
	}
	return l.String(), true
}

func isNull(v *hujson.Value) bool {
	l, ok := v.Value.(hujson.Literal)
	return ok && l.Kind() == 'n'
}

var errNotObjects = errors.New("not a JSON array of objects")

// eachObject calls f for each object of an array, without decoding it: a store
// of thousands of containers has some MB, of which one entry matters.
func eachObject(src []byte, f func(object []byte)) error {
	i := skipSpace(src, 0)
	if i >= len(src) || src[i] != '[' {
		return errNotObjects
	}
	if i = skipSpace(src, i+1); i < len(src) && src[i] == ']' {
		return atEnd(src, i+1)
	}
	for {
		end := endOfObject(src, i)
		if end < 0 {
			return errNotObjects
		}
		f(src[i:end])
		i = skipSpace(src, end)
		switch {
		case i < len(src) && src[i] == ',':
			i = skipSpace(src, i+1)
		case i < len(src) && src[i] == ']':
			return atEnd(src, i+1)
		default:
			return errNotObjects
		}
	}
}

func atEnd(src []byte, i int) error {
	if skipSpace(src, i) != len(src) {
		return errNotObjects
	}
	return nil
}

func skipSpace(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\t' || src[i] == '\r') {
		i++
	}
	return i
}

// endOfObject is the offset after the object that begins at i, and -1 without.
func endOfObject(src []byte, i int) int {
	if i >= len(src) || src[i] != '{' {
		return -1
	}
	for depth := 0; i < len(src); i++ {
		switch src[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			if i = endOfText(src, i+1); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// endOfText is the offset of the quote that ends the string of which i is the
// first byte, and -1 without.
func endOfText(src []byte, i int) int {
	for from := i; ; {
		n := bytes.IndexByte(src[from:], '"')
		if n < 0 {
			return -1
		}
		end := from + n
		escapes := 0
		for end-escapes > i && src[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end
		}
		from = end + 1
	}
}

// references are the digests in repositories.json, of the references to one
// image: {"Repositories": {NAME: {NAME@DIGEST: ID}}}. It is searched for
// the ID first, as there may be thousands.
func references(src []byte, id string) ([]string, error) {
	if !bytes.Contains(src, []byte(id)) {
		return nil, nil
	}
	var file struct {
		Repositories map[string]map[string]string
	}
	if err := json.Unmarshal(src, &file); err != nil {
		return nil, fmt.Errorf("repositories.json: %w", err)
	}
	var found []string
	for _, repository := range file.Repositories {
		for reference, of := range repository {
			if of == id {
				found = append(found, digestsOf(reference)...)
			}
		}
	}
	return found, nil
}
