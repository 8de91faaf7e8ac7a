package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestLoadUnitesGrants(t *testing.T) {
	p := mustLoad(t, "main", `
-- main --
`+withRule("m", "x", "include: [a, b]\n")+`containers:
  grants:
    - {rules: [z, x], platforms: [podman, docker], names: [b, a], images: ["sha256:`+hexB+`", "sha256:`+hexA+`"], namespaces: [b, a], pods: [b, a], labels: {l: "1", k: "2"}}
    - {rules: [y], annotations: {k: v}}
-- a --
`+withRule("a", "y")+`containers:
  grants: [{rules: [y], annotations: {k: v}}, {rules: [x], names: [a]}]
-- b --
`+withRule("b", "z"))
	got, err := p.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(got), `"containers":`)
	want := `{"unconfined":"refuse","grants":[` +
		`{"position":"a:8:47","rules":["x"],"names":["a"]},` +
		`{"position":"main:10:7","rules":["x","z"],"platforms":["docker","podman"],"names":["a","b"],` +
		`"images":["sha256:` + hexA + `","sha256:` + hexB + `"],"namespaces":["a","b"],"pods":["a","b"],"labels":{"k":"2","l":"1"}},` +
		`{"position":"main:11:7","rules":["y"],"annotations":{"k":"v"}}]}}`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestLoadUnconfined(t *testing.T) {
	says := func(name, word string, more ...string) string {
		text := "-- " + name + " --\nversion: 1\nname: " + name + "\n" + strings.Join(more, "")
		if word != "" {
			text += "containers: {unconfined: " + word + "}\n"
		}
		return text
	}
	for name, tt := range map[string]struct {
		files string
		want  Unconfined
	}{
		"nobody says it":     {says("main", ""), Refuse},
		"refuse":             {says("main", "refuse"), Refuse},
		"harden":             {says("main", "harden"), Harden},
		"allow":              {says("main", "allow"), Allow},
		"an include says it": {says("main", "", "include: [a, b]\n") + says("a", "") + says("b", "harden"), Harden},
		"includes agree":     {says("main", "", "include: [a, b]\n") + says("a", "allow") + says("b", "allow"), Allow},
		"the includer wins":  {says("main", "refuse", "include: [a, b]\n") + says("a", "allow") + says("b", "harden"), Refuse},
	} {
		if got := mustLoad(t, "main", tt.files).Unconfined; got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	_, _, err := Load("main", archive(says("main", "", "include: [a, b]\n")+says("a", "allow")+says("b", "refuse")))
	if want := "main:3:14: unconfined: a says allow and b says refuse; say in main which one holds"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestLoadGrantErrors(t *testing.T) {
	grantsOf := func(rules string) string {
		return "containers:\n  grants:\n    - {rules: [" + rules + "], names: [web]}\n"
	}
	for name, tt := range map[string]struct{ files, want string }{
		"a slip": {
			"-- main --\n" + withRule("m", "wifi") + grantsOf("wifi, wiffi"),
			`main:9:22: grant of "wiffi": the policy has no such rule; did you mean "wifi"?`,
		},
		"a rule of nobody, in an include": {
			"-- main --\n" + withRule("m", "wifi", "include: [a]\n") + "-- a --\nversion: 1\nname: a\n" + grantsOf("nonsense"),
			`a:5:16: grant of "nonsense": the policy has no such rule; its rules are wifi`,
		},
		"no rules at all": {
			"-- main --\nversion: 1\nname: m\n" + grantsOf("r"),
			`main:5:16: grant of "r": the policy has no such rule: it has none at all`,
		},
		"beside another fault": {
			"-- main --\n" + withRule("m", "x", "include: [a]\n") + grantsOf("y") + "-- a --\n" + withRule("a", "x"),
			`a:4:5: rule "x" is defined at main:5:5 already` + "\n" +
				`main:10:16: grant of "y": the policy has no such rule; did you mean "x"?`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, err := Load("main", archive(tt.files))
			if p != nil || err == nil {
				t.Fatalf("Load = %+v, %v", p, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A grant that gives nothing is a warning, and no error.
func TestLoadWarnsOfMootGrants(t *testing.T) {
	_, warnings, err := Load("p", archive(`
-- p --
version: 1
name: p
allow:
  - {rule: bare, binaries: [/a, /b], algorithms: {hash: [sha1]}}
  - {rule: pinned, binaries: [/a, {path: /b, sha256: "`+hexA+`"}], algorithms: {hash: [sha1]}}
  - {rule: root, users: [root], algorithms: {hash: [sha1]}}
containers:
  grants:
    - {rules: [bare, pinned, root], names: [web]}
`))
	if err != nil || len(warnings) != 1 {
		t.Fatalf("%v, %v", warnings, err)
	}
	want := `p:9:16: grant of "bare": no binary of the rule has a sha256, and none without one counts in a container`
	if got := warnings[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A policy of nonsense costs bounded work and text.
func TestLoadGrantLimits(t *testing.T) {
	grants := func(name string, n int) string {
		return "-- " + name + " --\nversion: 1\nname: " + name + "\ncontainers:\n grants:\n" + strings.Repeat(" - {rules: [x], names: [n]}\n", n)
	}
	half := policy.MaxGrants / 2
	main := strings.Replace(grants("main", 1), "containers:", "include: [a, b]\nallow: [{rule: x, users: [root], algorithms: {hash: [sha1]}}]\ncontainers:", 1)
	if p := mustLoad(t, "main", main+grants("a", half)+grants("b", half-1)); len(p.Grants) != 1 {
		t.Errorf("%d grants", len(p.Grants))
	}
	_, _, err := Load("main", archive(main+grants("a", half)+grants("b", half)))
	if want := "b:5004:4: more than 10000 grants in all"; err == nil || err.Error() != want {
		t.Errorf("got %.200v\nwant %s", err, want)
	}

	var b strings.Builder
	b.WriteString("-- p --\nversion: 1\nname: p\ncontainers:\n grants:\n - names: [n]\n   rules:\n")
	for i := range maxUnknown + 5 {
		fmt.Fprintf(&b, "   - r%d\n", i)
	}
	_, _, err = Load("p", archive(b.String()))
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != maxUnknown+1 || !strings.HasSuffix(lines[maxUnknown], ": and more rules that do not exist; correct these first") {
		t.Errorf("%d lines, the last %s", len(lines), lines[len(lines)-1])
	}
}

const oneGrant = "-- p --\nversion: 1\nname: p\nallow:\n" + grantA + grantB + "containers:\n  unconfined: harden\n  grants:\n" +
	"    - {rules: [a], platforms: [docker], names: [n], images: ['sha256:0000000000000000000000000000000000000000000000000000000000000000'], " +
	"namespaces: [ns], pods: [p], labels: {lk: lv}, annotations: {ak: av}}\n"

func TestDigestSeesContainers(t *testing.T) {
	seen := map[string]string{mustLoad(t, "p", oneGrant).Digest: "unchanged"}
	for _, change := range [][2]string{
		{"harden", "allow"}, {"harden", "refuse"}, {"rules: [a]", "rules: [b]"}, {"rules: [a]", "rules: [a, b]"}, {"docker", "podman"},
		{"[n]", "[m]"}, {":0000", ":0001"}, {"[ns]", "[nt]"}, {"[p]", "[q]"}, {"lk", "ll"}, {"lv", "lw"}, {"ak", "al"}, {"av", "aw"},
		{"platforms: [docker], ", ""}, {"names: [n], ", ""}, {"namespaces: [ns], ", ""}, {"pods: [p], ", ""}, {", annotations: {ak: av}", ""},
		{"labels: {lk: lv}, ", ""}, {"{ak: av}", "{ak: av, bk: bv}"}, {"rules: [a]", "rules: [a], builds: true"}, {"rules: [a]", "socketcall: broker"}, {"rules: [a]", "rules: [a], socketcall: broker"}, {"lv}", "lv, mk: mv}"},
		{oneGrant[strings.Index(oneGrant, "  grants:"):], ""}, {oneGrant[strings.Index(oneGrant, "containers:"):], ""},
	} {
		changed := strings.Replace(oneGrant, change[0], change[1], 1)
		d := mustLoad(t, "p", changed).Digest
		if before, ok := seen[d]; ok {
			t.Errorf("%v has the digest of %v", change, before)
		}
		seen[d] = fmt.Sprint(change)
	}
}

// Explicit defaults and order do not change the digest.
func TestDigestIsOfTheMeaningOfContainers(t *testing.T) {
	same := func(texts ...string) {
		t.Helper()
		for _, text := range texts[1:] {
			if got, want := mustLoad(t, "p", text).Digest, mustLoad(t, "p", texts[0]).Digest; got != want {
				t.Errorf("digest %s of\n%s\nand %s of\n%s", got, text, want, texts[0])
			}
		}
	}
	const plain = "-- p --\nversion: 1\nname: p\nallow:\n" + grantA + grantB
	same(plain, plain+"containers: {}\n", plain+"containers: {unconfined: refuse, grants: []}\n")
	same(
		plain+"containers:\n  grants:\n    - {rules: [a, b], names: [m, n], labels: {k: v, l: w}}\n    - {rules: [a], pods: [p]}\n",
		plain+"containers:\n  unconfined: refuse\n  grants:\n    - {rules: [a], pods: [p]}\n    - {labels: {l: w, k: v}, names: [n, m], rules: [b, a]}\n    - {rules: [a], pods: [p]}\n",
	)
}

// A workload has no grants to give. Its other rights do not depend on who gave
// them.
func TestGrantedDropsGrants(t *testing.T) {
	p := mustLoad(t, "p", oneGrant)
	g, err := p.Granted([]string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if g.Grants != nil || g.Unconfined != Harden || len(p.Grants) != 1 {
		t.Errorf("granted %+v of %+v", g, p)
	}
	without := mustLoad(t, "p", "-- p --\nversion: 1\nname: p\nallow:\n"+grantA+"containers: {unconfined: harden}\n")
	if g.Digest != without.Digest {
		t.Errorf("digest %s, want %s", g.Digest, without.Digest)
	}
}

func TestUnconfinedZeroIsRefuse(t *testing.T) {
	for u, want := range map[Unconfined]string{"": "refuse", "Allow": "refuse", Refuse: "refuse", Harden: "harden", LSM: "lsm", Allow: "allow"} {
		text, err := (&Plan{Unconfined: u}).MarshalJSON()
		if err != nil || !strings.Contains(string(text), `"unconfined":"`+want+`"`) {
			t.Errorf("%q: %s, %v", u, text, err)
		}
		if same := digest(&Plan{Unconfined: u}) == digest(&Plan{}); same != (want == "refuse") {
			t.Errorf("%q: the digest of the zero plan: %v", u, same)
		}
	}
	var words []string
	for _, u := range []Unconfined{Refuse, Harden, LSM, Allow} {
		words = append(words, string(u))
	}
	if !slices.Equal(words, policy.Unconfineds()) {
		t.Errorf("%q, a policy says one of %q", words, policy.Unconfineds())
	}
}

// The plan shares no list with the parser's result.
func TestNormalGrantCopies(t *testing.T) {
	g := policy.Grant{Rules: granted("b", "a"), Names: []string{"b", "a"}, Pods: []string{"b", "a"}}
	normal(g)
	if g.Rules[0].Name != "b" || g.Names[0] != "b" || g.Pods[0] != "b" {
		t.Errorf("input was changed: %+v", g)
	}
}
