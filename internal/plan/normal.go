package plan

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// normal returns a copy of a rule, of a grant or of an entry, with each of its
// lists sorted and without what it says twice. An empty list is nil, so that
// equal plans are deeply equal.
func normal[T any](v T) T {
	fields := reflect.ValueOf(&v).Elem()
	for i := range fields.NumField() {
		if list := fields.Field(i); list.Kind() == reflect.Slice {
			list.Set(sortedList(list))
		}
	}
	return v
}

func sortedList(list reflect.Value) reflect.Value {
	var items []reflect.Value
	for i := range list.Len() {
		items = append(items, list.Index(i))
	}
	sorted := reflect.Zero(list.Type())
	return reflect.Append(sorted, sortedBy(slices.Values(items), compareValues)...)
}

// compareMeaning compares two rules, grants or entries, or what they list,
// field by field: by what they mean, not by where they stand.
func compareMeaning[T any](a, b T) int {
	return compareValues(reflect.ValueOf(a), reflect.ValueOf(b))
}

func compareValues(a, b reflect.Value) int {
	switch a.Kind() {
	case reflect.String:
		return cmp.Compare(a.String(), b.String())
	case reflect.Struct:
		return compareFields(a, b)
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if order := compareValues(a.Index(i), b.Index(i)); order != 0 {
				return order
			}
		}
		return cmp.Compare(a.Len(), b.Len())
	case reflect.Map:
		return compareMaps(a, b)
	case reflect.Bool:
		return cmp.Compare(ordinal(a.Bool()), ordinal(b.Bool()))
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) // no type of a policy has another kind
}

func ordinal(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareFields(a, b reflect.Value) int {
	for i := range a.NumField() {
		if a.Type().Field(i).Type == reflect.TypeFor[policy.Pos]() {
			continue
		}
		if order := compareValues(a.Field(i), b.Field(i)); order != 0 {
			return order
		}
	}
	return 0
}

// compareMaps compares the keys first, and then their values.
func compareMaps(a, b reflect.Value) int {
	keys, others := a.MapKeys(), b.MapKeys()
	slices.SortFunc(keys, compareValues)
	slices.SortFunc(others, compareValues)
	if order := slices.CompareFunc(keys, others, compareValues); order != 0 {
		return order
	}
	for _, key := range keys {
		if order := compareValues(a.MapIndex(key), b.MapIndex(key)); order != 0 {
			return order
		}
	}
	return 0
}
