package gen

import "github.com/afalg-policy/afalg-policy/internal/afalg"

// Coverage says what a target does to a route in a workload without a grant.
type Coverage string

const (
	// Closed: refused, with the policy's errno where the target has a choice.
	Closed Coverage = "closed"
	// Killed: the whole ABI is cut off, by SIGSYS.
	Killed Coverage = "killed"
	// Loads: no socket, but the kernel may load the module.
	Loads Coverage = "loads module"
	// NotSeen: the target has no say in it.
	NotSeen Coverage = "open"
)

// coverage lists what differs from Closed. A descriptor that comes from outside
// is seen by no target: those were made before, by somebody else.
var coverage = map[string]map[afalg.Route]Coverage{
	"apparmor": {afalg.RouteInherited: NotSeen},
	"oci":      {afalg.RouteInherited: NotSeen},
	"seccomp":  {afalg.RouteInherited: NotSeen},
	"systemd":  systemdCoverage(),
}

func systemdCoverage() map[afalg.Route]Coverage {
	m := map[afalg.Route]Coverage{afalg.RouteInherited: NotSeen, afalg.RouteSocketpair: Loads}
	for _, r := range foreignRoutes {
		m[r] = Killed
	}
	return m
}

// Targets lists the names of the targets, sorted.
func Targets() []string { return sortedKeys(coverage) }

// CoverageOf tells what a target does to a route.
func CoverageOf(target string, r afalg.Route) Coverage {
	except, known := coverage[target]
	if !known {
		return NotSeen
	}
	if c, ok := except[r]; ok {
		return c
	}
	return Closed
}
