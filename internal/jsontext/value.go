package jsontext

import (
	"fmt"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// Text is the string at a JSON pointer, and "" where there is none.
func (d *Document) Text(pointer string) string {
	s, _ := asText(d.Root.Find(pointer))
	return s
}

// Texts is the object of strings at a JSON pointer; nil where there is none.
func (d *Document) Texts(pointer string) (map[string]string, error) {
	found := d.Root.Find(pointer)
	if found == nil || IsNull(found) {
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
		m[nameOf(&object.Members[i])] = s
	}
	return m, nil
}

// List is the array of strings at a JSON pointer; what is no string is left out.
func (d *Document) List(pointer string) []string {
	found := d.Root.Find(pointer)
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

// IsNull reports whether a value is null.
func IsNull(v *hujson.Value) bool {
	l, ok := v.Value.(hujson.Literal)
	return ok && l.Kind() == 'n'
}

func asText(v *hujson.Value) (string, bool) {
	if v == nil {
		return "", false
	}
	l, ok := v.Value.(hujson.Literal)
	if !ok || l.Kind() != '"' {
		return "", false
	}
	return l.String(), true
}

// nameOf is the name of a member. Nearly all are plain, and take no decoder.
func nameOf(m *hujson.ObjectMember) string {
	name := m.Name.Value.(hujson.Literal)
	for _, c := range name {
		if c == '\\' || c >= utf8.RuneSelf {
			return name.String()
		}
	}
	return string(name[1 : len(name)-1])
}
