package jsontext

import (
	"maps"
	"reflect"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// Key is a key of a text, with the fields that are known at its place.
type Key struct {
	Name   string
	Path   string // of the object, as a JSON pointer
	Offset int
	Fields map[string]reflect.Type
}

// Known reports whether the runtimes know the key.
func (k Key) Known() bool {
	_, ok := k.Fields[k.Name]
	return ok
}

// WalkKeys visits the keys of a value that is read into a type.
func WalkKeys(v *hujson.Value, t reflect.Type, path string, visit func(Key)) {
	walker{visit, map[reflect.Type]map[string]reflect.Type{}}.walk(v, t, path)
}

// walker knows the fields of the types that it has met: a profile has hundreds
// of objects of few types.
type walker struct {
	visit func(Key)
	known map[reflect.Type]map[string]reflect.Type
}

func (w walker) walk(v *hujson.Value, t reflect.Type, path string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := v.Value.(type) {
	case *hujson.Object:
		if t.Kind() != reflect.Struct {
			return
		}
		fields := w.fieldsOf(t)
		for i := range value.Members {
			m := &value.Members[i]
			name := nameOf(m)
			w.visit(Key{name, path, m.Name.StartOffset, fields})
			if inner, ok := fields[name]; ok {
				w.walk(&m.Value, inner, path+"/"+name)
			}
		}
	case *hujson.Array:
		if t.Kind() != reflect.Slice {
			return
		}
		for i := range value.Elements {
			if _, literal := value.Elements[i].Value.(hujson.Literal); !literal {
				w.walk(&value.Elements[i], t.Elem(), path+"/"+strconv.Itoa(i))
			}
		}
	}
}

func (w walker) fieldsOf(t reflect.Type) map[string]reflect.Type {
	if fields, ok := w.known[t]; ok {
		return fields
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		switch name, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case name != "":
			fields[name] = f.Type
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			maps.Copy(fields, w.fieldsOf(f.Type))
		}
	}
	w.known[t] = fields
	return fields
}
