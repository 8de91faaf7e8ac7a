package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestMetadataString(t *testing.T) {
	tests := map[string]struct {
		m    Metadata
		want string
	}{
		"zero":                {Metadata{}, `{"version":1,"policy":"","grants":[]}`},
		"another version":     {Metadata{Version: 7, Policy: "p"}, `{"version":1,"policy":"p","grants":[]}`},
		"sorted, each once":   {Metadata{Version: 1, Policy: "p", Grants: []string{"b", "a", "b"}}, `{"version":1,"policy":"p","grants":["a","b"]}`},
		"nothing is HTML":     {Metadata{Policy: "<&>"}, `{"version":1,"policy":"<&>","grants":[]}`},
		"quotes and newlines": {Metadata{Policy: "a\"\n"}, `{"version":1,"policy":"a\"\n","grants":[]}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.m.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestMetadataStringLeavesItsInput(t *testing.T) {
	m := Metadata{Grants: []string{"b", "a"}}
	_ = m.String()
	if diff := cmp.Diff(Metadata{Grants: []string{"b", "a"}}, m); diff != "" {
		t.Error(diff)
	}
}

func TestParseMetadata(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want Metadata
	}{
		"none":          {`{"version":1,"policy":"p","grants":[]}`, Metadata{1, "p", []string{}}},
		"sorted":        {`{"version":1,"policy":"","grants":["b","a"]}`, Metadata{1, "", []string{"a", "b"}}},
		"another order": {" {\n\"grants\": [\"a\"], \"policy\":\"p q\",\t\"version\":1}\n", Metadata{1, "p q", []string{"a"}}},
		"escapes":       {`{"\u0076ersion":1,"policy":"\u00e9","grants":["\u0061"]}`, Metadata{1, "é", []string{"a"}}},
		"longest name":  {`{"version":1,"policy":"","grants":["` + strings.Repeat("a", 64) + `"]}`, Metadata{1, "", []string{strings.Repeat("a", 64)}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMetadata(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// grantsText is metadata with n grants.
func grantsText(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"%c%c%c"`, 'a'+i/676, 'a'+i/26%26, 'a'+i%26)
	}
	return `{"version":1,"policy":"","grants":[` + strings.Join(names, ",") + `]}`
}

func TestParseMetadataErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                                       "not JSON: unexpected end of JSON input",
		`{`:                                      "not JSON: unexpected end of JSON input",
		`{"version":1,}`:                         "not JSON: invalid character '}' looking for beginning of object key string",
		`{"version":1,"policy":"","grants":[]}x`: "not JSON: invalid character 'x' after top-level value",
		`{"version":1,"policy":"","grants":[]}{}`:           "not JSON: invalid character '{' after top-level value",
		"{\"version\":1,\"policy\":\"\xff\",\"grants\":[]}": "not UTF-8",
		`null`:                      "not a JSON object",
		`[]`:                        "not a JSON object",
		`"{}"`:                      "not a JSON object",
		`{}`:                        `the key "version" is missing`,
		`{"version":1,"grants":[]}`: `the key "policy" is missing`,
		`{"version":1,"policy":""}`: `the key "grants" is missing`,
		`{"version":1,"policy":"","grants":[],"x":0}`:            `unknown key "x"; the keys are version, policy, grants`,
		`{"Version":1,"policy":"","grants":[]}`:                  `unknown key "Version"; the keys are version, policy, grants`,
		`{"version":1,"policy":"","grantſ":[]}`:                  `unknown key "grantſ"; the keys are version, policy, grants`,
		`{"version":1,"policy":"","grants":[],"grants":[]}`:      `the key "grants" stands twice`,
		`{"version":1,"policy":"","grants":[],"gr\u0061nts":[]}`: `the key "grants" stands twice`,
		`{"version":2,"policy":5,"grants":["*"]}`:                "version 2: this program reads version 1",
		`{"version":0,"policy":"","grants":[]}`:                  "version 0: this program reads version 1",
		`{"version":null,"policy":"","grants":[]}`:               "version must be a whole number",
		`{"version":"1","policy":"","grants":[]}`:                "version must be a whole number",
		`{"version":1.0,"policy":"","grants":[]}`:                "version must be a whole number",
		`{"version":1,"policy":null,"grants":[]}`:                "policy must be text",
		`{"version":1,"policy":["p"],"grants":[]}`:               "policy must be text",
		`{"version":1,"policy":"a\nb","grants":[]}`:              `policy "a\nb": only printable characters may stand in it`,
		`{"version":1,"policy":"\u202e","grants":[]}`:            `policy "\u202e": only printable characters may stand in it`,
		`{"version":1,"policy":"","grants":null}`:                "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":"a"}`:                 "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":{"a":1}}`:             "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":["a",1]}`:             "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":["a",null]}`:          "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":["a",["b"]]}`:         "grants must be a list of rule names",
		`{"version":1,"policy":"","grants":["a","b","a"]}`:       `grant "a" stands twice`,
		`{"version":1,"policy":"","grants":[""]}`:                `grant "" is no name of a rule`,
		`{"version":1,"policy":"","grants":["*"]}`:               `grant "*" is no name of a rule`,
		`{"version":1,"policy":"","grants":["socketpair"]}`:      `grant "socketpair" is no name of a rule`,
		`{"version":1,"policy":"","grants":["a\n"]}`:             `grant "a\n" is no name of a rule`,
		grantsText(policy.MaxRules + 1):                          "10001 grants; a policy has 10000 rules at most",
		strings.Repeat(" ", maxMetadata+1):                       "65537 bytes; at most 65536 are read",
	} {
		m, err := ParseMetadata(text)
		if err == nil || err.Error() != "listener metadata: "+want {
			t.Errorf("%.80s\n got %v\nwant listener metadata: %s", text, err, want)
		}
		if diff := cmp.Diff(Metadata{}, m); diff != "" {
			t.Errorf("%.80s: an error, and %s", text, diff)
		}
	}
}

func TestParseMetadataLimits(t *testing.T) {
	most, err := ParseMetadata(grantsText(policy.MaxRules))
	if err != nil || len(most.Grants) != policy.MaxRules {
		t.Errorf("%d grants, %v", len(most.Grants), err)
	}
	full := Metadata{}.String()
	full += strings.Repeat(" ", maxMetadata-len(full))
	if _, err := ParseMetadata(full); err != nil {
		t.Error(err)
	}
}

// The metadata and a policy accept the same names of rules.
func TestRuleNamesAreThoseOfPolicies(t *testing.T) {
	names := []string{
		"a", "0", "a-b", "a--", "-a", "A", "aB", "a_b", "a.b", "a b", "a\n", "\na", "é", "*", "",
		strings.Repeat("a", 64), strings.Repeat("a", 65),
	}
	for _, r := range afalg.Routes() {
		names = append(names, string(r.Route), string(r.Route)+"-")
	}
	valid := 0
	for _, name := range names {
		text := policy.Format(&policy.Policy{Name: "p", Rules: []policy.Rule{{
			Name: name, Anyone: true, Algorithms: sha1s,
		}}})
		_, _, err := policy.Parse("p", text)
		if policy.IsRuleName(name) != (err == nil) {
			t.Errorf("%q: IsRuleName says %v, the policy %v", name, policy.IsRuleName(name), err)
		}
		if err == nil {
			valid++
		}
	}
	if valid < 8 || valid > len(names)-8 {
		t.Errorf("%d of %d names are valid: the test says little", valid, len(names))
	}
}

// FuzzMetadata shows that parsed metadata can be written and reads the same
// again, with the properties that an agent relies on. Written metadata of good
// values can be read.
func FuzzMetadata(f *testing.F) {
	f.Add(`{"version":1,"policy":"p","grants":["b","a"]}`)
	f.Add(` {"grants":[],"version":1,"policy":"\ud800é"} `)
	f.Add(`{"version":1,"policy":"p","grants":["a","a"]}`)
	f.Add(`{"version":1,"Policy":"p","policy":"p","grants":null}`)
	f.Fuzz(func(t *testing.T, s string) {
		checkWritten(t, s)
		m, err := ParseMetadata(s)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "listener metadata: ") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		if m.Version != 1 || m.Grants == nil || !slices.IsSorted(m.Grants) || len(slices.Compact(slices.Clone(m.Grants))) != len(m.Grants) {
			t.Fatalf("%+v", m)
		}
		again, err := ParseMetadata(m.String())
		if err != nil && len(m.String()) <= maxMetadata {
			t.Fatalf("%v\nin %s", err, m)
		}
		if err == nil && !cmp.Equal(m, again) {
			t.Fatal(cmp.Diff(m, again))
		}
	})
}

// checkWritten makes metadata of the words of a text.
func checkWritten(t *testing.T, s string) {
	if !utf8.ValidString(s) {
		return // JSON cannot hold it
	}
	m := Metadata{Version: 1, Policy: s, Grants: strings.Fields(s)}
	good := len(m.String()) <= maxMetadata &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	for _, name := range m.Grants {
		good = good && policy.IsRuleName(name)
	}
	again, err := ParseMetadata(m.String())
	if good != (err == nil) {
		t.Fatalf("good: %v, %v\nin %s", good, err, m)
	}
	if err == nil && (again.Policy != s || again.String() != m.String()) {
		t.Fatalf("%s became %s", m, again)
	}
}
