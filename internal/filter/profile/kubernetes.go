package profile

import (
	"errors"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// kindProfile is the kind of the Security Profiles Operator's objects, whose
// spec is a profile.
const kindProfile = "SeccompProfile"

// profiles finds the profiles of a text: the text itself, the spec of an
// object, or the specs of a list of objects. A map without a kind is no object.
func (t *Text) profiles() ([]*Text, error) {
	kind := t.string("/kind")
	switch {
	case t.Root.Find("/kind") == nil || t.Root.Find("/defaultAction") != nil:
		return []*Text{t}, nil
	case strings.HasSuffix(kind, "List") && t.Root.Find("/items") != nil:
		return t.items()
	}
	return t.object("", kind)
}

// otherKindError is that of an object that is no profile.
type otherKindError struct{ error }

// IsOtherKind reports whether an error is that of a text with objects of Kubernetes
// of which none is a profile.
func IsOtherKind(err error) bool {
	_, is := errors.AsType[otherKindError](err)
	return is
}

// among finds the profiles of several texts or objects. Those of other kinds,
// which manifests have beside them, are passed over unless there are no others.
func among[T any](all []T, profiles func(T) ([]*Text, error)) (texts []*Text, err error) {
	none := otherKindError{errors.New("the text holds no object of kind SeccompProfile")}
	for i, one := range all {
		found, err := profiles(one)
		switch other, is := errors.AsType[otherKindError](err); {
		case is && i == 0:
			none = other
		case err != nil && !is:
			return nil, err
		}
		texts = append(texts, found...)
	}
	if len(texts) == 0 {
		return nil, none
	}
	return texts, nil
}

func (t *Text) items() ([]*Text, error) {
	list, ok := t.Root.Find("/items").Value.(*hujson.Array)
	if !ok {
		return nil, t.Errorf("/items", "items is no list")
	}
	var items []string
	for i := range list.Elements {
		items = append(items, "/items/"+strconv.Itoa(i))
	}
	return among(items, func(at string) ([]*Text, error) { return t.object(at, t.string(at+"/kind")) })
}

// object takes the spec of an object.
func (t *Text) object(at, kind string) ([]*Text, error) {
	if kind != kindProfile {
		err := t.Errorf(at+"/kind", "an object of kind %q: a profile has kind %s", kind, kindProfile)
		if kind == "" || strings.HasSuffix(kind, "List") && t.Root.Find(at+"/items") != nil {
			return nil, err // it may be one, or hold one
		}
		return nil, otherKindError{err}
	}
	spec := t.Root.Find(at + "/spec")
	if spec == nil {
		return nil, t.Errorf(at, "the object has no spec")
	}
	if _, ok := spec.Value.(*hujson.Object); !ok {
		return nil, t.Errorf(at+"/spec", "spec is no object")
	}
	if base := t.string(at + "/spec/baseProfileName"); base != "" {
		return nil, t.Errorf(at+"/spec/baseProfileName",
			"the operator unites this profile with %q, which is not here: give the file that it writes on the node, below /var/lib/kubelet/seccomp/operator", base)
	}
	one := *t
	one.Prefix = at + "/spec"
	one.Object = strings.TrimPrefix(t.string(at+"/metadata/namespace")+"/"+t.string(at+"/metadata/name"), "/")
	if one.Object == "" {
		one.Object = "an object without a name"
	}
	return []*Text{&one}, nil
}

func (t *Text) string(path string) string {
	v := t.Root.Find(path)
	if v == nil {
		return ""
	}
	text, ok := v.Value.(hujson.Literal)
	if !ok || text.Kind() != '"' {
		return ""
	}
	return text.String()
}
