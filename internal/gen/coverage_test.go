package gen

import (
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// A route that a target does not close with the policy's errno is one of its
// gaps, and the gaps that are about other routes say no less.
func TestCoverageIsInTheGaps(t *testing.T) {
	for _, r := range afalg.Routes() {
		about := slices.IndexFunc(systemdGaps, func(g plan.Gap) bool { return slices.Contains(g.Routes, r.Route) })
		c := CoverageOf("systemd", r.Route)
		switch {
		case c == NotSeen && r.Route != afalg.RouteInherited:
			t.Errorf("%s is open, and no gap is wider", r.Route)
		case (c == Killed || c == Loads) && about < 0:
			t.Errorf("%s is %q, and in no gap", r.Route, c)
		case c == Killed && systemdGaps[about].Kind != plan.Stricter, c == Loads && systemdGaps[about].Kind != plan.Different:
			t.Errorf("%s is %q, and the gap is %s", r.Route, c, systemdGaps[about].Kind)
		case c == Closed && about >= 0 && systemdGaps[about].Kind != plan.Stricter:
			t.Errorf("%s is closed, and the gap says %s", r.Route, systemdGaps[about])
		}
	}
	for _, target := range Targets() {
		if c := CoverageOf(target, afalg.RouteInherited); c != NotSeen {
			t.Errorf("%s says of inherited descriptors: %q", target, c)
		}
	}
	if c := CoverageOf("no target", afalg.RouteSocket); c != NotSeen {
		t.Errorf("an unknown target: %q", c)
	}
}
