// Package fields changes one field of a value at a time, for tests that every
// field counts somewhere: one that is added to the type and forgotten fails them.
package fields

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Each calls check for each field that the sample holds, at any depth, with the
// field's path ("Rules[].Units[]") and a copy of the sample in which that field
// alone is another: a text is what other makes of it, a number one more, true
// is false. A field that is empty in one item of a list stays so; one that is
// empty in all of them is an error, for the sample has to show every field.
//
// Exempt names fields that need not count, by their path, or as ".Name" wherever
// they are, each with the reason. One that is not there is an error.
func Each[T any](t *testing.T, sample T, other func(string) string, exempt map[string]string, check func(t *testing.T, path string, changed T)) {
	t.Helper()
	w := &walker{exempt: exempt, seen: map[string]bool{}, used: map[string]bool{}}
	w.walk("", reflect.ValueOf(&sample).Elem(), nil)
	for path, filled := range w.seen {
		if !filled {
			t.Errorf("the sample shows no %s", path)
		}
	}
	for name, reason := range exempt {
		if !w.used[name] || reason == "" {
			t.Errorf("%s is exempt (%q), and no field, or without a reason", name, reason)
		}
	}
	for _, l := range w.leaves {
		copied := reflect.New(reflect.TypeFor[T]()).Elem()
		copied.Set(clone(reflect.ValueOf(sample)))
		if err := l.change(copied, other); err != nil {
			t.Errorf("%s: %v", l.path, err)
			continue
		}
		t.Run(l.path, func(t *testing.T) { check(t, l.path, copied.Interface().(T)) })
	}
}

// leaf is a value without parts, and the steps to it.
type leaf struct {
	path  string
	steps []step
}

// step leads from a value to a part of it; the zero step through a pointer.
type step struct {
	index int           // of a field or of an item
	key   reflect.Value // of a map
}

type walker struct {
	exempt map[string]string
	leaves []leaf
	seen   map[string]bool // whether a field was filled anywhere, by path
	used   map[string]bool // exempt names
}

func (w *walker) walk(path string, v reflect.Value, steps []step) {
	next := func(s step) []step { return append(slices.Clone(steps), s) }
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if name := w.exempts(path, f.Name); name != "" {
				w.used[name] = true
				continue
			}
			w.walk(strings.TrimPrefix(path+"."+f.Name, "."), v.Field(i), next(step{index: i}))
		}
		return
	case reflect.Slice:
		w.seen[path] = w.seen[path] || v.Len() > 0
		for i := range v.Len() {
			w.walk(path+"[]", v.Index(i), next(step{index: i}))
		}
		return
	case reflect.Map:
		w.seen[path] = w.seen[path] || v.Len() > 0
		for _, key := range v.MapKeys() {
			w.leaves = append(w.leaves, leaf{path + "{}", next(step{key: key})})
		}
		return
	case reflect.Pointer:
		if !v.IsNil() {
			w.walk(path, v.Elem(), next(step{}))
			return
		}
	}
	w.seen[path] = w.seen[path] || !v.IsZero()
	if !v.IsZero() {
		w.leaves = append(w.leaves, leaf{path, steps})
	}
}

func (w *walker) exempts(path, field string) string {
	for _, name := range []string{strings.TrimPrefix(path+"."+field, "."), "." + field} {
		if _, ok := w.exempt[name]; ok {
			return name
		}
	}
	return ""
}

// change makes the leaf another.
func (l leaf) change(root reflect.Value, other func(string) string) error {
	v := root
	for _, s := range l.steps {
		switch v.Kind() {
		case reflect.Struct:
			v = v.Field(s.index)
		case reflect.Slice:
			v = v.Index(s.index)
		case reflect.Pointer:
			v = v.Elem()
		case reflect.Map:
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(s.key))
			if err := set(value, other); err != nil {
				return err
			}
			v.SetMapIndex(s.key, value)
			return nil
		}
	}
	return set(v, other)
}

func set(v reflect.Value, other func(string) string) error {
	switch {
	case v.Kind() == reflect.String:
		changed := other(v.String())
		if changed == v.String() {
			return fmt.Errorf("no other value than %q is known", changed)
		}
		v.SetString(changed)
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.CanUint():
		v.SetUint(v.Uint() + 1)
	default:
		return fmt.Errorf("a %s cannot be changed: exempt it, with the reason", v.Type())
	}
	return nil
}

// clone copies what the parts of a value point to.
func clone(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if c.Field(i).CanSet() {
				c.Field(i).Set(clone(v.Field(i)))
			}
		}
	case reflect.Slice:
		c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			c.Index(i).Set(clone(v.Index(i)))
		}
		if v.IsNil() {
			c.SetZero()
		}
	case reflect.Map:
		if !v.IsNil() {
			c.Set(reflect.MakeMap(v.Type()))
			for _, key := range v.MapKeys() {
				c.SetMapIndex(key, v.MapIndex(key))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c.Set(reflect.New(v.Type().Elem()))
			c.Elem().Set(clone(v.Elem()))
		}
	}
	return c
}
