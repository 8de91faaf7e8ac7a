package plan

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// TestZeroCopy: only false lets it through, and only true is more than some
// targets can do.
func TestZeroCopy(t *testing.T) {
	for _, tt := range []struct {
		deny    string
		refuses bool
		gaps    int
	}{
		{"", true, 0},
		{"deny: {zero-copy: true}\n", true, 1},
		{"deny: {zero-copy: false}\n", false, 0},
	} {
		p := mustLoad(t, "p", "-- p --\nversion: 1\nname: p\n"+tt.deny)
		if got := p.RefusesZeroCopy(); got != tt.refuses {
			t.Errorf("%q refuses: %t", tt.deny, got)
		}
		gaps := p.ZeroCopyGaps(true)
		if len(gaps) != tt.gaps || tt.gaps > 0 && (gaps[0].Kind != Wider || gaps[0].Name != policy.GapZeroCopy) {
			t.Errorf("%q: %v", tt.deny, gaps)
		}
		if gaps := p.ZeroCopyGaps(false); gaps != nil {
			t.Errorf("%q, and nobody has AF_ALG: %v", tt.deny, gaps)
		}
	}
	var none *Plan
	if !none.RefusesZeroCopy() || !(&Plan{}).RefusesZeroCopy() || !(&Plan{ZeroCopy: "off"}).RefusesZeroCopy() {
		t.Error("a plan that does not say false lets it through")
	}
}

// What a policy says comes before what its includes say, and those must agree.
func TestZeroCopyOfIncludes(t *testing.T) {
	includes := "-- a --\nversion: 1\nname: a\ndeny: {zero-copy: true}\n-- b --\nversion: 1\nname: b\ndeny: {zero-copy: false}\n"
	of := func(rest string) (*Plan, error) {
		p, _, err := Load("p", archive("-- p --\nversion: 1\nname: p\n"+rest+includes))
		return p, err
	}
	if p, err := of("include: [a]\n"); err != nil || p.ZeroCopy != policy.Yes {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := of("include: [a, b]\ndeny: {zero-copy: false}\n"); err != nil || p.ZeroCopy != policy.No {
		t.Errorf("%+v, %v", p, err)
	}
	const want = "zero-copy: a says true and b says false; say in p which one holds"
	if _, err := of("include: [a, b]\n"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
