//go:build vm

package vmtest

import (
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// guardUnits are rules about units, and nothing else.
const guardUnits = `  - rule: service
    units: [guarded.service]
    algorithms: {hash: [sha224]}
  - rule: template
    units: ["guarded@.service"]
    algorithms: {hash: [sha384]}
  - rule: instance
    units: ["guarded@one.service"]
    algorithms: {hash: [md5]}
`

// unitRules is what a policy means by guardUnits: who may use what.
var unitRules = []struct {
	algorithm string
	holds     func(unit string) bool
}{
	{"sha224", func(unit string) bool { return unit == "guarded.service" }},
	{"sha384", func(unit string) bool {
		return strings.HasPrefix(unit, "guarded@") && strings.HasSuffix(unit, ".service")
	}},
	{"md5", func(unit string) bool { return unit == "guarded@one.service" }},
}

// cgroups are places of a process: of a unit, or of none.
var cgroups = []string{
	"/",
	"/system.slice",
	"/system.slice/guarded.service",
	"/system.slice/_guarded.service",
	"/system.slice/guarded.service/sub/deeper",
	"/system.slice/guarded.service/other.service",
	"/system.slice/other.service",
	"/system.slice/other.service/guarded.service",
	"/system.slice/guarded.servicex",
	"/system.slice/guarded.scope",
	"/system.slice/system-guarded.slice/guarded@one.service",
	"/system.slice/system-guarded.slice/guarded@two.service",
	"/system.slice/guarded@.service",
	"/system.slice/guarded@one.scope",
	"/system.slice/xguarded@one.service",
	"/a.slice/a-b.slice/a-b-c.slice/guarded.service",
	"/user.slice/guarded.service",
	"/user.slice/user-1000.slice/user@1000.service/app.slice/guarded.service",
	"/user.slice/user-1000.slice/session-1.scope/guarded.service",
	"/guarded.service",
	"/guarded@x.slice/guarded.service",
	"/no unit/guarded.service",
	"/machine.slice/guarded.service/payload/system.slice/other.service",
	"/" + strings.Repeat("d.slice/", 14) + "guarded.service",
	"/" + strings.Repeat("d.slice/", 20) + "guarded.service",
}

// unitLines ask in each cgroup for each algorithm of guardUnits. What comes of it
// is what subject.UnitOf says of the place; the deepest is beyond what the
// programs look at, and has no unit there.
func unitLines() []guardedLine {
	var lines []guardedLine
	for _, path := range cgroups {
		unit, err := subject.UnitOf("0::" + path + "\n")
		if err != nil || strings.Count(path, "/") > 16 {
			unit = ""
		}
		held := false
		for _, r := range unitRules {
			held = held || r.holds(unit)
		}
		script, free, want := fmt.Sprintf("mkdir -p '/sys/fs/cgroup%[1]s'; echo 0 >'/sys/fs/cgroup%[1]s/cgroup.procs'; $N $B guard ask hash", path), "", ""
		for _, r := range unitRules {
			script += " " + r.algorithm
			free += "hash:" + r.algorithm + " ok\n"
			switch {
			case r.holds(unit):
				want += "hash:" + r.algorithm + " ok\n"
			case held:
				want += "hash:" + r.algorithm + " bind:ENOENT\n"
			default:
				want += "hash:" + r.algorithm + " socket:EAFNOSUPPORT\n"
			}
		}
		lines = append(lines, guardedLine{"cgroup " + path, script, free, want})
	}
	return lines
}
