package profile

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Keys visits the keys of the profile, which is read into that type, except
// those that are the operator's business.
func (t *Text) Keys(into reflect.Type, visit func(jsontext.Key)) {
	v := t.Value()
	if v == nil {
		return
	}
	jsontext.WalkKeys(v, into, t.Prefix, func(k jsontext.Key) {
		if t.Object == "" || k.Path != t.Prefix || !slices.Contains(operatorKeys, k.Name) {
			visit(k)
		}
	})
}

// operatorKeys stand beside the keys of a profile in the spec of an object.
var operatorKeys = []string{"baseProfileName", "disabled"}

// sameKeys refuses keys that differ from a known one in case alone: Go takes
// them for it, crun does not.
func (t *Text) sameKeys(into reflect.Type) (err error) {
	t.Keys(into, func(k jsontext.Key) { err = cmp.Or(err, t.otherCase(k)) })
	return err
}

// otherCase is the error of a key that differs from a known one in case alone.
func (t *Text) otherCase(k jsontext.Key) error {
	if k.Known() {
		return nil
	}
	for known := range k.Fields {
		if jsontext.FoldKey(known) == jsontext.FoldKey(k.Name) {
			return t.fail(k.Offset, "key %q: runc reads it as %q, and crun ignores it", k.Name, known)
		}
	}
	return nil
}

// knownKeys refuses keys that are not understood, and so cannot be carried
// over. A remark may be lost.
func (t *Text) knownKeys(into reflect.Type) (err error) {
	t.Keys(into, func(k jsontext.Key) {
		if !k.Known() && !IsRemark(k.Name) {
			err = cmp.Or(err, t.otherCase(k), t.fail(k.Offset, "unknown key %q, which the runtimes ignore%s: correct it, or remove it", k.Name, Suggest("", k.Name, k.Fields)))
		}
	})
	return err
}
