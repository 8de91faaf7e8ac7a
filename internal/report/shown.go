package report

import (
	"reflect"

	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// shown is a copy of a value in which no text can steer what shows it.
func shown[T any](v T) T {
	return shownValue(reflect.ValueOf(v)).Interface().(T)
}

func shownValue(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		out.SetString(printable.Line(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(shownValue(v.Field(i)))
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = reflect.Append(out, shownValue(v.Index(i)))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out = reflect.New(v.Type().Elem())
			out.Elem().Set(shownValue(v.Elem()))
		}
	default:
		out.Set(v)
	}
	return out
}
