package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const (
	grantHead = "-- p --\nversion: 1\nname: p\ndeny: {socket-errno: EPERM, bind-errno: EACCES, families: [AF_KEY]}\n"
	grantA    = "  - {rule: a, users: [root], algorithms: {hash: [sha1]}}\n"
	grantB    = "  - {rule: b, units: [b.service], algorithms: {aead: ['*']}}\n"
	grantC    = "  - {rule: c, anyone: true, algorithms: {rng: [stdrng]}}\n"
)

func grantPlan(t *testing.T) *Plan {
	return mustLoad(t, "p", grantHead+"allow:\n"+grantA+grantB+grantC)
}

// The granted plan equals that of a policy with only these rules.
func TestGranted(t *testing.T) {
	p := grantPlan(t)
	before := grantPlan(t)
	// Rules keep their places in the policy that they come from.
	places := cmp.Comparer(func(a, b policy.Pos) bool { return true })
	for name, tt := range map[string]struct {
		names []string
		want  string
	}{
		"nothing":              {nil, ""},
		"one":                  {[]string{"b"}, "allow:\n" + grantB},
		"two in another order": {[]string{"c", "a"}, "allow:\n" + grantA + grantC},
		"one twice":            {[]string{"a", "a"}, "allow:\n" + grantA},
		"all":                  {[]string{"a", "b", "c"}, "allow:\n" + grantA + grantB + grantC},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Granted(tt.names)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(mustLoad(t, "p", grantHead+tt.want), got, places); diff != "" {
				t.Error(diff)
			}
		})
	}
	if diff := cmp.Diff(before, p); diff != "" {
		t.Errorf("the plan was changed: %s", diff)
	}
}

func TestGrantedErrors(t *testing.T) {
	p := grantPlan(t)
	var many []policy.Rule
	for i := range 20 {
		many = append(many, policy.Rule{Name: fmt.Sprintf("r%02d", i)})
	}
	for want, tt := range map[string]struct {
		p     *Plan
		names []string
	}{
		`the policy has no rule "x"; its rules are a, b, c`:                                  {p, []string{"x"}},
		`the policy has no rule "*", "x"; its rules are a, b, c`:                             {p, []string{"x", "a", "*", "x"}},
		`the policy has no rule ""; its rules are a, b, c`:                                   {p, []string{""}},
		`the policy has no rule "A\n"; its rules are a, b, c`:                                {p, []string{"A\n"}},
		`the policy has no rule "a": it has none at all`:                                     {&Plan{}, []string{"a"}},
		`the policy has no rule "b": it has none at all`:                                     {nil, []string{"b"}},
		`the policy has no rule "x"; its rules are r00, r01, r02, r03, r04, r05 and 14 more`: {&Plan{Rules: many}, []string{"x"}},
	} {
		got, err := tt.p.Granted(tt.names)
		if err == nil || err.Error() != want || got != nil {
			t.Errorf("got %v, %v\nwant %s", got, err, want)
		}
	}
}

func TestGrantedKnown(t *testing.T) {
	p := grantPlan(t)
	got, unknown := p.GrantedKnown([]string{"y", "c", "x", "a", "y", "*"})
	if diff := cmp.Diff([]string{"*", "x", "y"}, unknown); diff != "" {
		t.Error(diff)
	}
	want, err := p.Granted([]string{"a", "c"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, none := range []*Plan{nil, {}} {
		got, unknown := none.GrantedKnown([]string{"a"})
		if got == nil || len(got.Rules) != 0 || !slices.Equal(unknown, []string{"a"}) || !strings.HasPrefix(got.Digest, "sha256:") {
			t.Errorf("%+v %v", got, unknown)
		}
	}
}

// A granted plan shares no list with its source that either appends to.
func TestGrantedIsApart(t *testing.T) {
	p := grantPlan(t)
	g, err := p.Granted([]string{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	g.Rules[0].Name, g.Families[0].Name = "changed", "changed"
	if p.Rules[0].Name != "a" || p.Families[0].Name != "AF_KEY" {
		t.Errorf("%+v", p)
	}
}

// checkGranted shows that a grant allows what one of its rules allows in the
// plan, and nothing else. Every name is either granted or unknown.
func checkGranted(t *testing.T, w world, p *Plan, r Request) {
	names := some1(w, 3, func() string { return pick(w, "a", "b", "c", "d", "") })
	g, unknown := p.GrantedKnown(names)
	want := false
	for i := range p.Rules {
		alone := &Plan{Rules: p.Rules[i : i+1]}
		// The world has several rules of a name; a loaded plan has not.
		first := !slices.Contains(ruleNames(p.Rules[:i]), p.Rules[i].Name)
		want = want || first && slices.Contains(names, p.Rules[i].Name) && Decide(alone, r).Allowed
	}
	if got := Decide(g, r).Allowed; got != want {
		t.Fatalf("granted %v: Decide = %v, want %v\nplan %+v\nrequest %+v", names, got, want, p, r)
	}
	for _, name := range names {
		if slices.Contains(unknown, name) == slices.Contains(ruleNames(g.Rules), name) {
			t.Fatalf("%q is granted and unknown, or neither: %v, %v", name, ruleNames(g.Rules), unknown)
		}
	}
	if _, err := p.Granted(names); (err == nil) != (len(unknown) == 0) {
		t.Fatalf("Granted says %v, GrantedKnown %v", err, unknown)
	}
}
