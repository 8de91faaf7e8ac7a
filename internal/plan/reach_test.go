package plan

import (
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestReaches(t *testing.T) {
	one := func(rule policy.Rule) *Plan { return &Plan{Rules: []policy.Rule{rule}} }
	root := Request{UID: uid(0)}
	tests := map[string]struct {
		p    *Plan
		r    Request
		want bool
	}{
		"no plan":                 {nil, root, false},
		"zero plan":               {&Plan{}, root, false},
		"zero rule":               {one(policy.Rule{}), root, false},
		"the subject":             {one(policy.Rule{Users: []string{"root"}, Algorithms: sha1s}), root, true},
		"another subject":         {one(policy.Rule{Users: []string{"root"}, Algorithms: sha1s}), Request{UID: uid(1)}, false},
		"nothing known":           {one(policy.Rule{Users: []string{"root"}, Algorithms: sha1s}), Request{}, false},
		"anyone":                  {one(policy.Rule{Anyone: true, Algorithms: sha1s}), Request{}, true},
		"a rule for nobody":       {one(policy.Rule{Algorithms: sha1s}), root, false},
		"no algorithm":            {one(policy.Rule{Anyone: true}), root, false},
		"a whole type":            {one(policy.Rule{Anyone: true, Algorithms: []policy.Algorithm{algorithm(afalg.AEAD, "*")}}), root, true},
		"no name":                 {one(policy.Rule{Anyone: true, Algorithms: []policy.Algorithm{algorithm(afalg.AEAD, "")}}), root, false},
		"no type":                 {one(policy.Rule{Anyone: true, Algorithms: []policy.Algorithm{algorithm("", "*")}}), root, false},
		"another algorithm asked": {one(policy.Rule{Anyone: true, Algorithms: sha1s}), Request{Algorithm: afalg.Algorithm{Type: "rng", Name: "x"}}, true},
		"a star asked":            {one(policy.Rule{Anyone: true, Algorithms: sha1s}), Request{Algorithm: afalg.Algorithm{Type: "hash", Name: "*"}}, true},
		"claimed path":            {one(policy.Rule{Binaries: []policy.Binary{{Path: "/a"}}, Algorithms: sha1s}), Request{Binary: "/a", SHA256: hexA, Claimed: true}, false},
		"claimed path and digest": {one(policy.Rule{Binaries: []policy.Binary{{Path: "/a", SHA256: hexA}}, Algorithms: sha1s}), Request{Binary: "/a", SHA256: hexA, Claimed: true}, true},
		"by the second rule": {&Plan{Rules: []policy.Rule{
			{Users: []string{"1"}, Algorithms: sha1s}, {Users: []string{"0"}, Algorithms: sha1s},
		}}, root, true},
		"subject and algorithm in two rules": {&Plan{Rules: []policy.Rule{
			{Users: []string{"1"}, Algorithms: sha1s}, {Users: []string{"0"}},
		}}, root, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Reaches(tt.p, tt.r); got != tt.want {
				t.Errorf("Reaches = %v, want %v", got, tt.want)
			}
		})
	}
}

// checkReaches asks Decide about every algorithm that the plan names, and about
// an unnamed one of each type in it.
func checkReaches(t *testing.T, p *Plan, r Request) {
	want := false
	for _, rule := range p.Rules {
		for _, a := range rule.Algorithms {
			for _, name := range []string{a.Name, "named-nowhere"} {
				asked := r
				asked.Algorithm = afalg.Algorithm{Type: a.Type, Name: name}
				want = want || Decide(p, asked).Allowed
			}
		}
	}
	if got := Reaches(p, r); got != want {
		t.Fatalf("Reaches = %v, and Decide says %v\nplan %+v\nrequest %+v", got, want, p, r)
	}
}

// The properties of plans and requests test Reaches only if it answers both.
func TestReachesAnswersBoth(t *testing.T) {
	count := map[bool]int{}
	for seed := range uint64(2000) {
		w := newWorld(seed)
		count[Reaches(&Plan{Rules: some1(w, 4, w.rule)}, w.request())]++
	}
	if count[true] < 100 || count[false] < 100 {
		t.Errorf("%v", count)
	}
}

func TestHasDigest(t *testing.T) {
	p := &Plan{Rules: []policy.Rule{
		{Binaries: []policy.Binary{{Path: "/plain"}, {Path: "/hashed", SHA256: "00"}}},
		{Binaries: []policy.Binary{{Path: "/plain/not"}}},
	}}
	for path, want := range map[string]bool{"/hashed": true, "/plain": false, "/plain/not": false, "/other": false, "": false} {
		if got := p.HasDigest(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
	if (&Plan{}).HasDigest("/hashed") {
		t.Error("no rules, and one asks")
	}
}
