package gen

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// seccompGaps says what a seccomp profile cannot express of the policy.
func seccompGaps(p *plan.Plan, base *profile.Profile, c closing, ch change, o SeccompOptions) ([]Gap, error) {
	rules, err := o.granted(p)
	if err != nil {
		return nil, err
	}
	var gaps []Gap
	for _, r := range rules {
		if c.broker {
			break // binary and algorithm are decided at run time
		}
		gaps = append(gaps, Gap{Wider, r.Name, grantedRoutes(base),
			"a static profile sees neither binary nor algorithm: the whole workload gets AF_ALG whole; give the rule to a workload of its own"})
	}
	for _, r := range p.Rules {
		if !slices.Contains(o.Grants, r.Name) {
			gaps = append(gaps, Gap{Stricter, r.Name, nil,
				"denied like everything else: a workload that needs it gets a profile of its own with --grant " + r.Name})
		}
	}
	return append(gaps, filterGaps(base, c, ch, o)...), nil
}

// filterGaps are those that do not depend on the rules of the policy.
func filterGaps(base *profile.Profile, c closing, ch change, o SeccompOptions) []Gap {
	gaps := socketcallGap(c, ch, base, o)
	if ch.highbits {
		gaps = append(gaps, Gap{Stricter, string(afalg.RouteSocketHighbits), []afalg.Route{afalg.RouteSocketHighbits},
			"calls with high bits in the family argument are refused for every family; no C library sets them"})
	}
	gaps = append(gaps, errnoGaps(base, c, ch)...)
	return append(gaps, brokerGaps(base, ch)...)
}

// brokerGaps are those of a profile with a broker; ch is zero for others.
func brokerGaps(base *profile.Profile, ch change) []Gap {
	var gaps []Gap
	if ch.prctl {
		text := "prctl(PR_SET_MM) is refused: a process could forge its executable with it"
		if !isPermissive(base.DefaultAction) {
			text += "; options that no kernel has are refused by the base's default action"
		}
		gaps = append(gaps, Gap{Stricter, "prctl-set-mm", nil, text})
	}
	for _, name := range ch.missing {
		gaps = append(gaps, Gap{Stricter, name, nil, "the base refuses the call, which a session with AF_ALG may need"})
	}
	return gaps
}

// grantedRoutes lists the routes that a grant opens.
func grantedRoutes(base *profile.Profile) []afalg.Route {
	routes := []afalg.Route{afalg.RouteSocket, afalg.RouteCompatSocket, afalg.RouteX32Socket}
	if isPermissive(base.DefaultAction) {
		routes = append(routes, afalg.RouteSocketHighbits)
	}
	return routes
}

// socketcallGap is about machines with an ABI that has socketcall.
func socketcallGap(c closing, ch change, base *profile.Profile, o SeccompOptions) []Gap {
	const name = string(afalg.RouteCompatSocketcall)
	const behind = "; an LSM rule has to stand behind it: AppArmor `deny network alg,` or SELinux alg_socket"
	routes := []afalg.Route{afalg.RouteCompatSocketcall, afalg.RouteSocketpair}
	has, native := socketcallABIs(base, o)
	allows := isPermissive(base.DefaultAction)
	switch {
	case !has || !ch.socketcall || c.socketcall == SocketcallBroker && allows:
		return nil
	case c.socketcall == SocketcallBroker:
		return []Gap{{Stricter, name, routes[:1], "socketcall with numbers that no kernel has, or with high bits, is refused by the base's default action"}}
	case c.socketcall != SocketcallKeep && c.broker:
		return []Gap{{Stricter, name, routes[:1],
			"programs that use socketcall get no sockets (32-bit x86, s390, ppc, mips); --socketcall broker leaves it to the broker"}}
	case c.socketcall != SocketcallKeep:
		return []Gap{{Stricter, name, routes[:1],
			"programs that use socketcall get no sockets (32-bit x86, s390, ppc, mips); --socketcall keep leaves it to an LSM rule"}}
	case !allows:
		return []Gap{{Wider, name, routes, "32-bit programs reach every family through socketcall" + behind}}
	case native:
		return []Gap{{Wider, name, routes, "socketcall stays open to calls with high bits" + behind}}
	}
	return []Gap{{Stricter, name, routes[:1],
		"kept or not, libseccomp refuses every socket by socketcall where a profile allows by default and compares the family"}}
}

// socketcallABIs tells whether the profile admits an ABI that has socketcall,
// and whether that is the machine's own.
func socketcallABIs(base *profile.Profile, o SeccompOptions) (has, native bool) {
	hosts := []profile.Host{o.Host}
	if o.Format == FormatDocker {
		hosts = hostsOf(base, o.Host)
	}
	for _, h := range hosts {
		for _, a := range append(base.Arches(h.Arch), h.Arch) {
			abi, _ := afalg.ABIOf(string(a))
			has = has || abi.Socketcall != 0
			native = native || abi.Socketcall != 0 && abi.Kind == afalg.Native
		}
	}
	return has, native
}

// errnoGaps names the denials that answer with another errno than the
// policy's.
func errnoGaps(base *profile.Profile, c closing, ch change) []Gap {
	if isPermissive(base.DefaultAction) {
		return nil
	}
	var gaps []Gap
	h := hardener{closing: c, base: base}
	if !ch.socketRest && !h.isDefault(c.errno) {
		gaps = append(gaps, Gap{Different, string(afalg.RouteSocketHighbits), []afalg.Route{afalg.RouteSocketHighbits},
			"refused by the base's default action, as for every family"})
	}
	if h.isDefault(c.errno) && ch.socketcall && c.socketcall != SocketcallBroker {
		gaps = append(gaps, Gap{Different, string(afalg.RouteCompatSocketcall), []afalg.Route{afalg.RouteCompatSocketcall},
			"refused with another errno: the policy's is the base's default, and the runtimes drop a rule that equals the default"})
	}
	return gaps
}
