package policy

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Format prints a policy as a file: Parse reads p from it again, apart from
// positions. The text depends on nothing else, so its digest is one of the
// policy.
func Format(p *Policy) []byte {
	f := &formatter{}
	f.line(0, "version", "1")
	f.mapping(0, reflect.ValueOf(*p))
	return f.Bytes()
}

// formatter prints what the types of a policy hold, under the keys that they
// name.
type formatter struct{ bytes.Buffer }

func (f *formatter) line(indent int, key, value string) {
	f.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+key+": "+value, " ") + "\n")
}

// mapping prints the fields of a struct. Those that are empty are left out,
// unless they must be there.
func (f *formatter) mapping(indent int, v reflect.Value) {
	for i := range v.NumField() {
		if key, required := keyOf(v.Type().Field(i)); key != "" {
			f.entry(indent, key, v.Field(i), required)
		}
	}
}

// keyOf returns the key of a field in a policy file, "" if it is not in one.
func keyOf(f reflect.StructField) (key string, required bool) {
	if f.Type == reflect.TypeFor[Pos]() {
		return "", false
	}
	key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.TrimPrefix(key, "-"), options == ""
}

// entry prints a key with what is below it, or with its value in the same line.
func (f *formatter) entry(indent int, key string, v reflect.Value, required bool) {
	var below formatter
	value := ""
	switch v.Kind() {
	case reflect.Struct:
		below.mapping(indent+2, v)
	case reflect.Map:
		below.pairs(indent+2, v.Interface().(map[string]string))
	case reflect.Slice:
		if all, ok := v.Interface().(Algorithms); ok {
			below.algorithms(indent+2, all)
		} else if value = flow(v); value == "" {
			below.list(indent+2, v)
		}
	case reflect.Bool:
		if v.Bool() {
			value = "true"
		}
	case reflect.String:
		if choice, ok := v.Interface().(Choice); ok {
			value = string(choice)
		} else if v.String() != "" || required {
			value = plain(v.String())
		}
	}
	if value != "" || below.Len() > 0 || required {
		f.line(indent, key, value)
		f.Write(below.Bytes())
	}
}

// flow prints a list of texts in one line; "" for any other, and an empty one.
func flow(list reflect.Value) string {
	var texts []string
	for i := range list.Len() {
		switch item := list.Index(i).Interface().(type) {
		case string:
			texts = append(texts, plain(item))
		case fmt.Stringer:
			texts = append(texts, plain(item.String()))
		default:
			return ""
		}
	}
	if texts == nil {
		return ""
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// list prints mappings as items, each after a dash.
func (f *formatter) list(indent int, list reflect.Value) {
	for i := range list.Len() {
		var item formatter
		item.mapping(indent+2, list.Index(i))
		if text := item.Bytes(); len(text) > 0 {
			text[indent] = '-'
			f.Write(text)
		}
	}
}

func (f *formatter) algorithms(indent int, all Algorithms) {
	names := all.byType()
	for _, t := range afalg.Types() {
		f.entry(indent, string(t), reflect.ValueOf(names[t]), false)
	}
}

// pairs prints a mapping of texts, sorted.
func (f *formatter) pairs(indent int, pairs map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		f.line(indent, plain(k), plain(pairs[k]))
	}
}

// plainText matches what YAML reads as text without quotes, the words apart
// that a version of YAML takes for something else.
var (
	plainText = lazily(`^[A-Za-z_/][A-Za-z0-9_/.@+-]*$`)
	yamlWord  = lazily(`^(?i:true|false|yes|no|on|off|y|n|null)$`)
)

// plain prints a string as YAML. The escapes of Go are among those of YAML.
// Digests look alike, quoted all of them.
func plain(s string) string {
	if plainText().MatchString(s) && !yamlWord().MatchString(s) && !sha256Hex().MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}
