package gen

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Coverage says what a target does to a route in a workload without a grant:
// Closed, NotSeen, or the effect of a gap.
type Coverage string

const (
	// Closed: refused, with the policy's errno where the target has a choice.
	Closed Coverage = "closed"
	// NotSeen: the target has no say in it.
	NotSeen Coverage = "open"
)

// fixedGaps lists, for each target, the gaps of any output. A filter has none:
// what it leaves open depends on its base and options, and must be accepted.
var fixedGaps = map[string][]plan.Gap{
	"apparmor":   appArmorGaps,
	"kubernetes": kubernetesGaps,
	"oci":        nil,
	"seccomp":    nil,
	"selinux":    selinuxGaps,
	"systemd":    systemdGaps,
	"tetragon":   tetragonGaps,
}

// Targets lists the names of the targets, sorted.
func Targets() []string { return sortedKeys(fixedGaps) }

// CoverageOf returns what a target does to a route. A descriptor that comes from
// outside is seen by no target: those were made before, by somebody else.
func CoverageOf(target string, r afalg.Route) Coverage {
	gaps, known := fixedGaps[target]
	if !known || r == afalg.RouteInherited {
		return NotSeen
	}
	return coverage(gaps, r)
}

// coverage returns what an output with these gaps does to a route.
func coverage(gaps []plan.Gap, r afalg.Route) Coverage {
	c := Closed
	for _, g := range gaps {
		switch {
		case !slices.Contains(g.Routes, r):
		case g.Kind == plan.Wider:
			return NotSeen
		case g.Effect != "":
			c = Coverage(g.Effect)
		}
	}
	return c
}
