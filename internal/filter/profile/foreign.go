package profile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// A policy of LXC begins with its version, and says in the second line what
// its list is for.
var lxcPolicy = regexp.MustCompile(`^[12][ \t]*\r?\n(?:allowlist|denylist|whitelist|blacklist)\b`)

// notOurs refuses the texts that are taken for profiles and are none, with
// what they are and what to do.
func notOurs(src []byte) error {
	if len(bytes.TrimSpace(src)) == 0 {
		return errors.New("1:1: the text is empty: a profile that filters nothing is {}")
	}
	if err := jsontext.NotMarked(src); err != nil {
		return err
	}
	if at := bytes.IndexByte(src, 0); at >= 0 {
		return fmt.Errorf("%s: a NUL byte: this is no text in UTF-8; verify takes a BPF program by --bpf", jsontext.Place(src, at))
	}
	if lxcPolicy.Match(src) {
		return errors.New("1:1: this is a seccomp policy of LXC, which no OCI runtime reads: LXC compiles it by itself; ask about a running container of it with verify --pid")
	}
	return nil
}

// word is what stands where JSON wants a value.
var word = regexp.MustCompile(`^[A-Za-z0-9_]+`)

// explainSyntax adds the remedy to an error of the JSON syntax, where a number
// is written as people think of it.
func explainSyntax(src []byte, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return err
	}
	at := int(syntax.Offset) - 1
	for at > 0 && at < len(src) && word.Match(src[at-1:at]) {
		at--
	}
	if at < 0 || at >= len(src) {
		return err
	}
	found := string(word.Find(src[at:]))
	if strings.HasPrefix(found, "SCMP_") {
		return fmt.Errorf("%s: write %q, in quotes", jsontext.Place(src, at), found)
	}
	number, ok := numberOf(found)
	if !ok {
		return err
	}
	return fmt.Errorf("%s: write %s: JSON knows neither names nor hexadecimal numbers", jsontext.Place(src, at), number)
}

// numberOf finds the number that a word stands for.
func numberOf(word string) (string, bool) {
	family := word
	if bare, ok := strings.CutPrefix(word, "PF_"); ok {
		family = "AF_" + bare
	}
	if n, ok := afalg.FamilyByName(family); ok {
		return fmt.Sprintf("%d, the number of %s", n, word), true
	}
	if n, ok := afalg.ErrnoByName(word); ok {
		return fmt.Sprintf("%d, the number of %s", n, word), true
	}
	if n, err := strconv.ParseUint(word, 0, 64); err == nil {
		return strconv.FormatUint(n, 10), true
	}
	return "", false
}

// typeError says where a value is of a kind that the key does not take, and
// what to write instead.
func (t *Text) typeError(err error, start int) error {
	kind, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return fmt.Errorf("reading a seccomp profile: %w", err)
	}
	if kind.Field == "" {
		kind.Field = cmp.Or(strings.ReplaceAll(strings.TrimPrefix(t.Prefix, "/"), "/", "."), "the profile")
	}
	at := start + int(kind.Offset) - 1
	value := valueAt(t.Value(), at)
	if value == nil {
		return t.fail(at, "%s cannot be a JSON %s", kind.Field, kind.Value)
	}
	if text, ok := value.Value.(hujson.Literal); ok && text.Kind() == '"' {
		if number, ok := numberOf(text.String()); ok {
			return t.fail(value.StartOffset, "%s cannot be a JSON %s: write %s", kind.Field, kind.Value, number)
		}
	}
	return t.fail(value.StartOffset, "%s cannot be a JSON %s", kind.Field, kind.Value)
}

// valueAt finds the innermost value around an offset.
func valueAt(v *hujson.Value, at int) *hujson.Value {
	if v == nil || at < v.StartOffset || at >= v.EndOffset {
		return nil
	}
	var inner []*hujson.Value
	switch t := v.Value.(type) {
	case *hujson.Object:
		for i := range t.Members {
			inner = append(inner, &t.Members[i].Value)
		}
	case *hujson.Array:
		for i := range t.Elements {
			inner = append(inner, &t.Elements[i])
		}
	}
	for _, i := range inner {
		if found := valueAt(i, at); found != nil {
			return found
		}
	}
	return v
}

// IsRemark reports whether a key is not meant to do anything, so that leaving
// it out loses nothing.
func IsRemark(key string) bool {
	return key == "comment" || key == "description" ||
		strings.HasPrefix(key, "_") || strings.HasPrefix(key, "$") || strings.HasPrefix(key, "//")
}
