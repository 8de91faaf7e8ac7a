package policy

import (
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/policies"
)

func TestShippedCatalogue(t *testing.T) {
	c, err := readCatalogue(policies.Classes())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, class := range c.classes {
		if seen[class.String()] {
			t.Errorf("%s stands twice", class)
		}
		seen[class.String()] = true
		if len(class.Modules) == 0 && len(class.Initcalls) > 0 {
			t.Errorf("%s has initcalls without a module", class)
		}
	}
	for preset, want := range map[string]int{"page-cache": 4, "unused": 19, "vsock": 1} {
		if got := len(ClassesOf(preset)); got != want {
			t.Errorf("%s has %d classes, want %d", preset, got, want)
		}
	}
	if !slices.Equal(Presets(), []string{"page-cache", "unused", "vsock"}) {
		t.Errorf("presets %q", Presets())
	}
}

func TestFaultyCatalogue(t *testing.T) {
	for _, src := range []string{
		"", "[]", "presets: []", "{presets: [], classes: [{why: x, source: y}]}",
		"{presets: [], classes: [{family: AF_KEY, why: x}]}",
		"{presets: [], classes: [{family: AF_KEY, presets: [none], why: x, source: y}]}",
		"{presets: [], classes: [{family: AF_KEY, protocol: 3, why: x, source: y}]}",
	} {
		if c, err := readCatalogue([]byte(src)); err == nil || len(c.classes) > 0 {
			t.Errorf("%q is read: %+v", src, c)
		}
	}
}
