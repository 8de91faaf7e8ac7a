package kube

import (
	"strings"
	"testing"
)

func TestGrantedProfile(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	seen := map[string]string{}
	for _, tt := range []struct{ rules, want string }{
		{"", DefaultProfile},
		{"b a b", "afalg-policy/granted/a.b.json"},
		{"a-b", "afalg-policy/granted/a-b.json"},
		{long, ""},
		{long + "y", ""},
	} {
		got := GrantedProfile(strings.Fields(tt.rules))
		if tt.want != "" && got != tt.want {
			t.Errorf("%q: %s, want %s", tt.rules, got, tt.want)
		}
		if len(got) > 255 || seen[got] != "" {
			t.Errorf("%q: %s, as of %q", tt.rules, got, seen[got])
		}
		seen[got] = tt.rules
		rules, granted := GrantedRules("./" + got)
		if granted != (tt.rules != "") || rules != nil && GrantedProfile(rules) != got {
			t.Errorf("%s is read as %q, %t", got, rules, granted)
		}
	}
}
