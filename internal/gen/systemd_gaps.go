package gen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// socketRoutes are those that RestrictAddressFamilies closes by itself.
var socketRoutes = []afalg.Route{afalg.RouteSocket, afalg.RouteSocketHighbits}

// foreignRoutes are those that SystemCallArchitectures=native closes.
var foreignRoutes = []afalg.Route{afalg.RouteCompatSocket, afalg.RouteCompatSocketcall, afalg.RouteX32Socket}

// systemdErrno is what RestrictAddressFamilies answers; it cannot be chosen.
const systemdErrno = "EAFNOSUPPORT"

// gaps says what systemd cannot express of the policy, the worst first.
func (s *systemd) gaps() []Gap {
	gaps := s.machineGaps()
	if s.Show == nil {
		gaps = append(gaps, Gap{Different, GapOwnLists, nil,
			"a unit that allows only some address families itself gets this longer list instead; give --show, and each keeps its own"})
	}
	for _, unit := range slices.Sorted(slices.Values(s.Except)) {
		gaps = append(gaps, Gap{Wider, unit, socketRoutes, "AF_ALG stays open to it by every route"})
	}
	gaps = append(gaps, s.ruleGaps()...)
	if got := s.plan.SocketErrno.Name; got != "" && got != systemdErrno {
		gaps = append(gaps, Gap{Different, "socket-errno", socketRoutes,
			fmt.Sprintf("systemd answers %s, not %s", systemdErrno, got)})
	}
	return append(gaps, systemdGaps...)
}

// systemdGaps are those of any output.
var systemdGaps = []Gap{
	{Different, string(afalg.RouteSocketpair), []afalg.Route{afalg.RouteSocketpair},
		"the kernel refuses it with its own errno and gives no socket, but may load the af_alg module first"},
	{Stricter, "foreign-abi", foreignRoutes,
		"programs for another ABI, such as 32-bit ones, are killed by SIGSYS at their first call"},
	{Stricter, string(afalg.RouteIOUring), []afalg.Route{afalg.RouteIOUring},
		"io_uring is closed as a whole, with ENOSYS"},
	{Stricter, "no-new-privileges", nil,
		"in units that run without CAP_SYS_ADMIN, setuid programs such as sudo gain nothing any more; one is user@.service, with everything that a desktop starts (--except leaves a unit out)"},
}

// machineGaps tells where systemd ignores RestrictAddressFamilies: 252 skips
// machines whose native ABI has socketcall, and those that it does not list.
func (s *systemd) machineGaps() []Gap {
	if s.abi.Socketcall == 0 && s.abi.Name != "loong64" {
		return nil
	}
	return []Gap{{Wider, string(afalg.RouteSocket), append(slices.Clone(socketRoutes), afalg.RouteCompatSocketcall),
		fmt.Sprintf("systemd ignores RestrictAddressFamilies on %s: AF_ALG stays open", s.abi.Name)}}
}

func (s *systemd) ruleGaps() []Gap {
	units := map[string][]string{}
	for _, unit := range sortedKeys(s.holds) {
		for _, rule := range s.holds[unit] {
			units[rule] = append(units[rule], unit)
		}
	}
	return grantGaps(s.plan, s.Grants, socketRoutes, func(rule string) string { return strings.Join(units[rule], ", ") })
}

// grantGaps says, rule by rule, what a target makes of the grants that cannot
// tell one algorithm from another. The function names the holder of a rule.
func grantGaps(p *plan.Plan, grants []string, routes []afalg.Route, holder func(rule string) string) []Gap {
	var gaps []Gap
	for _, rule := range p.Rules {
		if slices.Contains(grants, rule.Name) {
			gaps = append(gaps, Gap{Wider, rule.Name, routes,
				fmt.Sprintf("AF_ALG is open to %s with every algorithm, to each binary and user in it", holder(rule.Name))})
		}
	}
	for _, rule := range p.Rules {
		if !slices.Contains(grants, rule.Name) {
			gaps = append(gaps, Gap{Stricter, rule.Name, nil,
				fmt.Sprintf("nobody holds the rule; --grant %s opens AF_ALG for it", rule.Name)})
		}
	}
	return gaps
}
