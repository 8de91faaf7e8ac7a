package jsontext

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// Change puts a text in the place of the bytes from Start to End.
type Change struct {
	Start, End int
	Text       string
}

// Apply makes changes, which do not overlap, and keeps every other byte. src
// stays as it is.
func Apply(src []byte, changes ...Change) []byte {
	changes = slices.SortedFunc(slices.Values(changes), func(a, b Change) int { return cmp.Compare(a.Start, b.Start) })
	var out []byte
	at := 0
	for _, c := range changes {
		out = append(append(out, src[at:c.Start]...), c.Text...)
		at = c.End
	}
	return append(out, src[at:]...)
}

// Set gives the change that sets the value at a path of object keys, laid out as
// what is around it. Objects that are missing on the way are made; null counts
// as missing.
//
// A key that differs from a wanted one by case alone is refused, and anything
// but an object on the way.
func (d *Document) Set(path []string, value any) (Change, error) {
	if len(path) == 0 {
		return Change{}, errors.New("no key is named whose value is to be set")
	}
	root, err := d.object(&d.Root, "the file")
	if err != nil {
		return Change{}, err
	}
	object := place{Object: root, start: d.Root.StartOffset, end: d.Root.EndOffset}
	for i, key := range path {
		rest := path[i+1:]
		m, err := d.member(object.Object, key)
		if err != nil {
			return Change{}, err
		}
		if m == nil {
			return d.add(object, key, nest(rest, value))
		}
		if len(rest) == 0 || IsNull(&m.Value) {
			return d.put(m, nest(rest, value))
		}
		o, err := d.object(&m.Value, strings.Join(path[:i+1], "."))
		if err != nil {
			return Change{}, err
		}
		object = place{o, m, m.Value.StartOffset, m.Value.EndOffset}
	}
	return Change{}, nil // the last key has returned
}

// nest makes the objects on the way to a value.
func nest(path []string, value any) any {
	for i := len(path) - 1; i >= 0; i-- {
		value = map[string]any{path[i]: value}
	}
	return value
}

// Cut gives the change that takes the member at a path out, with the comma that
// it needed.
func (d *Document) Cut(path []string) (Change, error) {
	v := &d.Root
	for i, key := range path {
		o, err := d.object(v, strings.Join(path[:i], "."))
		if err != nil {
			return Change{}, err
		}
		at := slices.IndexFunc(o.Members, func(m hujson.ObjectMember) bool { return nameOf(&m) == key })
		if at < 0 {
			return Change{}, fmt.Errorf("%s is not there", strings.Join(path, "."))
		}
		if i < len(path)-1 {
			v = &o.Members[at].Value
			continue
		}
		m := o.Members
		switch {
		case at > 0:
			return Change{m[at-1].Value.EndOffset, m[at].Value.EndOffset, ""}, nil
		case len(m) > 1:
			return Change{m[0].Name.StartOffset, m[1].Name.StartOffset, ""}, nil
		}
		return Change{v.StartOffset + 1, v.EndOffset - 1, ""}, nil
	}
	return Change{}, nil
}

// member finds a key. Programs disagree about one that differs by case alone:
// those in Go take it, and the last one counts; others pass over it.
func (d *Document) member(o *hujson.Object, key string) (exact *hujson.ObjectMember, err error) {
	for i := range o.Members {
		m := &o.Members[i]
		switch name := nameOf(m); {
		case name == key:
			exact = m
		case err == nil && strings.EqualFold(name, key):
			err = d.fail(m.Name.StartOffset, "key %s: some programs read it as %q and others do not; rename or remove it",
				d.Src[m.Name.StartOffset:m.Name.EndOffset], key)
		}
	}
	return exact, err
}

func (d *Document) object(v *hujson.Value, what string) (*hujson.Object, error) {
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil, d.fail(v.StartOffset, "%s is no JSON object", what)
	}
	return o, nil
}

func (d *Document) fail(offset int, format string, args ...any) error {
	return fmt.Errorf("%s: %w", Place(d.Src, offset), fmt.Errorf(format, args...))
}
