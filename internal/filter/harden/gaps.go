package harden

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// gapRevived is about what libseccomp loses of a base.
const gapRevived = "lost-denials"

// gapsOf says what a result cannot express of the policy.
func gapsOf(p *plan.Plan, base *profile.Profile, c closing, ch change, o Options) ([]plan.Gap, error) {
	gaps, err := grantedRules(p, base, c.broker, o.Grants)
	if err != nil {
		return nil, err
	}
	gaps = append(gaps, deniedRules(p, o)...)
	return append(gaps, filterGaps(base, c, ch, o)...), nil
}

// grantedRules are the rules that the workload holds. With a broker, binary and
// algorithm are decided at run time.
func grantedRules(p *plan.Plan, base *profile.Profile, broker bool, grants []string) ([]plan.Gap, error) {
	rules, err := p.RulesNamed(grants)
	if err != nil {
		return nil, err
	}
	var gaps []plan.Gap
	opens := false
	for _, r := range rules {
		if onlyClasses(r) {
			continue
		}
		opens = opens || !broker || !r.StrictExec
		switch {
		case !broker:
			gaps = append(gaps, plan.Wider.Gap(r.Name, grantedRoutes(base),
				"a static profile sees neither binary nor algorithm: AF_ALG is open whole to the whole workload"+plan.Steered(r)+"; give the rule to a workload of its own"))
		case r.StrictExec:
			gaps = append(gaps, plan.Stricter.Gap(r.Name, nil,
				"the rule holds for nobody: it says strict-exec, and the broker cannot see who steers an executable; only the kernel half can"))
		}
	}
	return slices.Concat(gaps, openedClasses(p, rules), p.ZeroCopyGaps(opens)), nil
}

// deniedRules are the rules of the policy that are not granted.
func deniedRules(p *plan.Plan, o Options) (gaps []plan.Gap) {
	for _, r := range p.Rules {
		if !slices.Contains(o.Grants, r.Name) {
			gaps = append(gaps, plan.Stricter.Gap(r.Name, nil,
				"denied like everything else: a workload that needs it gets a profile of its own with --grant "+r.Name))
		}
	}
	return gaps
}

// filterGaps are those that do not depend on the rules of the policy.
func filterGaps(base *profile.Profile, c closing, ch change, o Options) []plan.Gap {
	gaps := socketcallGap(c, ch, base, o)
	if ch.highbits {
		gaps = append(gaps, plan.Stricter.Gap(gapHighbits, []afalg.Route{afalg.RouteSocketHighbits},
			"calls with high bits in the family argument are refused for every family; no C library sets them"))
	}
	if ch.ints {
		gaps = append(gaps, plan.Stricter.Gap(gapInts, nil,
			"calls with high bits in the type or protocol of a socket, or in the level or name of a socket option, are refused where the policy closes a part of the family, or an option; no C library sets them"))
	}
	if ch.revived {
		gaps = append(gaps, plan.Stricter.Gap(gapRevived, nil,
			"libseccomp "+seccomp.Version()+" loses denials of the base: sockets that it says it denies can be made under it, and not under the result"))
	}
	gaps = append(gaps, errnoGaps(base, c, ch)...)
	if ch.stub {
		gaps = append(gaps, plan.Different.Gap("enosys", nil,
			"runc answers calls above the largest number in a profile with ENOSYS; hardening moved that number, and calls in between get the default action instead, or the other way round"))
	}
	return append(gaps, brokerGaps(base, ch)...)
}

// brokerGaps are those of a profile with a broker; ch is zero for others.
func brokerGaps(base *profile.Profile, ch change) []plan.Gap {
	var gaps []plan.Gap
	if ch.prctl {
		text := "prctl(PR_SET_MM) is refused: a process could forge its executable with it"
		if !isPermissive(base.DefaultAction) {
			text += "; options that no kernel has are refused by the base's default action"
		}
		gaps = append(gaps, plan.Stricter.Gap(gapPrctl, nil, text))
	}
	if ch.seccomp {
		gaps = append(gaps, plan.Stricter.Gap(gapListener, nil,
			"seccomp(2) with the flags of a listener (8 and more) is refused with EBUSY, as while another listener lives: a process could answer in the broker's place"))
	}
	if ch.getfd {
		gaps = append(gaps, plan.Stricter.Gap(callGetfd, nil, "pidfd_getfd is refused: where Yama is off it takes the AF_ALG sockets of processes outside"))
	}
	for _, name := range ch.missing {
		gaps = append(gaps, plan.Stricter.Gap(name, nil, "the base refuses the call, which a session with AF_ALG may need"))
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
func socketcallGap(c closing, ch change, base *profile.Profile, o Options) []plan.Gap {
	const name = GapSocketcall
	const behind = "; an LSM rule has to stand behind it: AppArmor `deny network alg,` or SELinux alg_socket"
	routes := []afalg.Route{afalg.RouteCompatSocketcall, afalg.RouteSocketpair}
	has, native := socketcallABIs(base, o)
	allows := isPermissive(base.DefaultAction)
	switch {
	case has && ch.unmade:
		return []plan.Gap{plan.Stricter.Gap(name, routes[:1],
			"programs that use socketcall get no sockets (32-bit x86, s390, ppc, mips): the base denies some sockets, and the broker does not know which")}
	case has && ch.options:
		return []plan.Gap{plan.Stricter.Gap(name, routes[:1],
			"programs that use socketcall set no socket options (32-bit x86, s390, ppc, mips): the policy denies some, and they are behind a pointer")}
	case !has || !ch.socketcall || c.socketcall == SocketcallBroker && allows:
		return nil
	case c.socketcall == SocketcallBroker:
		return []plan.Gap{plan.Stricter.Gap(name, routes[:1], "socketcall with numbers that no kernel has, or with high bits, is refused by the base's default action")}
	case c.socketcall != SocketcallKeep && c.broker:
		return []plan.Gap{plan.Stricter.Gap(name, routes[:1],
			"programs that use socketcall get no sockets (32-bit x86, s390, ppc, mips); --socketcall broker leaves it to the broker")}
	case c.socketcall != SocketcallKeep:
		return []plan.Gap{plan.Stricter.Gap(name, routes[:1],
			"programs that use socketcall get no sockets (32-bit x86, s390, ppc, mips); --socketcall keep leaves it to an LSM rule")}
	case !allows:
		reach := "32-bit programs reach every family through socketcall"
		if len(c.options) > 0 {
			reach += ", and set every socket option"
		}
		return []plan.Gap{plan.Wider.Gap(name, routes, reach+behind)}
	case native:
		return []plan.Gap{plan.Wider.Gap(name, routes, "socketcall stays open to calls with high bits"+behind)}
	}
	return []plan.Gap{plan.Stricter.Gap(name, routes[:1],
		"kept or not, libseccomp refuses every socket by socketcall where a profile allows by default and compares the family")}
}

// socketcallABIs reports whether the profile admits an ABI that has socketcall,
// and whether that is the machine's own.
func socketcallABIs(base *profile.Profile, o Options) (has, native bool) {
	for _, h := range o.hosts(base) {
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
func errnoGaps(base *profile.Profile, c closing, ch change) []plan.Gap {
	if isPermissive(base.DefaultAction) {
		return nil
	}
	var gaps []plan.Gap
	h := hardener{closing: c, base: base}
	if !ch.socketRest && !h.isDefault(c.errno) {
		gaps = append(gaps, plan.Different.Gap(gapHighbits, []afalg.Route{afalg.RouteSocketHighbits},
			"refused by the base's default action, as for every family"))
	}
	if h.isDefault(c.errno) && ch.socketcall && c.socketcall != SocketcallBroker {
		gaps = append(gaps, plan.Different.Gap(GapSocketcall, []afalg.Route{afalg.RouteCompatSocketcall},
			anotherErrno))
	}
	for _, class := range []struct {
		name  string
		here  bool
		errno uint
	}{
		{policy.GapSockets, len(c.narrow) > 0, c.errno},
		{policy.GapSocketOptions, len(c.options) > 0, uint(unix.ENOPROTOOPT)},
		{policy.GapUserNamespaces, c.userNamespaces, uint(unix.EINVAL)},
	} {
		if class.here && h.isDefault(class.errno) {
			gaps = append(gaps, plan.Different.Gap(class.name, nil, anotherErrno))
		}
	}
	return gaps
}

const anotherErrno = "refused with another errno: the one that it should have is the base's default, and the runtimes drop a rule that equals the default"
