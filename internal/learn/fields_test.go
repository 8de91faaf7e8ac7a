package learn

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/fields"
)

// Uses that differ are two: both are kept, both are in the policy, and each is
// allowed by it alone.
func TestFieldsOfAUseAreLearned(t *testing.T) {
	one := use("/bin/a", hexA, "hash:sha1")
	other := func(s string) string {
		switch s {
		case hexA:
			return hexB
		case "hash":
			return "skcipher"
		}
		return s + "x"
	}
	fields.Each(t, one, other, nil, func(t *testing.T, path string, changed Use) {
		r := &Recorder{}
		r.Used(one)
		r.Used(changed)
		both := load(t, r)
		alone := &Recorder{}
		alone.Used(one)
		if p := load(t, alone); !decide(p, one, true) || decide(p, changed, true) {
			t.Errorf("what was learned of one use allows another %s", path)
		}
		if !decide(both, one, true) || !decide(both, changed, true) {
			t.Errorf("one of two uses with another %s was not learned", path)
		}
		if compareUses(one, changed) == 0 {
			t.Errorf("uses with another %s have no order", path)
		}
		if unused, _ := bound(one, changed).Unused(); len(unused) != 2 {
			t.Errorf("%d of two binds with another %s", len(unused), path)
		}
		if strings.Count(string(r.File("p", "")), "sha1") == 0 {
			t.Error("nothing is in the file")
		}
	})
}

func bound(uses ...Use) *Recorder {
	r := &Recorder{}
	for _, u := range uses {
		r.Bound(u)
	}
	return r
}
