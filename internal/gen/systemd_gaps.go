package gen

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// socketRoutes are those that RestrictAddressFamilies closes by itself.
var socketRoutes = []afalg.Route{afalg.RouteSocket, afalg.RouteSocketHighbits}

// foreignRoutes are those that SystemCallArchitectures=native closes.
var foreignRoutes = []afalg.Route{afalg.RouteCompatSocket, afalg.RouteCompatSocketcall, afalg.RouteX32Socket}

// systemdErrno is what RestrictAddressFamilies answers; it cannot be chosen.
const systemdErrno = "EAFNOSUPPORT"

// gaps says what systemd cannot express of the policy, the worst first.
func (s *systemd) gaps() []plan.Gap {
	gaps := s.machineGaps()
	for _, name := range slices.Sorted(slices.Values(s.Except)) {
		gaps = append(gaps, plan.Wider.Gap(name, socketRoutes, "AF_ALG stays open to it by every route"))
	}
	gaps = append(gaps, s.hiddenGaps()...)
	gaps = append(gaps, s.ruleGaps()...)
	gaps = append(gaps, s.plan.ZeroCopyGaps(opens(gaps))...)
	gaps = append(gaps, s.classGaps()...)
	gaps = append(gaps, s.containerGaps()...)
	gaps = append(gaps, s.unitGaps()...)
	if got := s.plan.SocketErrno.Name; got != "" && got != systemdErrno {
		gaps = append(gaps, plan.Different.Gap("socket-errno", socketRoutes,
			fmt.Sprintf("systemd answers %s, not %s", systemdErrno, got)))
	}
	if len(s.Units) == 0 {
		gaps = append(gaps, s.initramfsGap(), laterUnits)
	}
	return append(gaps, systemdGaps...)
}

// laterUnits: the drop-in for every service resets the list of a unit that was
// not there to be asked.
var laterUnits = plan.Different.Gap("later-units", nil,
	"a service that comes later with a list of its own gets the longer one of every service, without AF_ALG, until this is done again")

// initramfsGap says what an initramfs takes of the output.
func (s *systemd) initramfsGap() plan.Gap {
	then := "and where that checks itself with fips=1, the boot stops, unless a rule names the units that check (" + strings.Join(initramfsUnits, ", ") + ") and no others, as one of builtin:fips does"
	if len(s.unasked) > 0 {
		then = "and the units of rule " + strings.Join(s.unasked, ", ") + " keep it there"
	}
	return plan.Stricter.Gap("initramfs", nil,
		"an initramfs by dracut takes of /etc/systemd the drop-ins of single units that it lists, and not service.d; one by mkosi, as a UKI, or with install_items takes all of it: AF_ALG is closed there too, "+then)
}

// systemdGaps are those of any output.
var systemdGaps = []plan.Gap{
	plan.Different.Gap(string(afalg.RouteSocketpair), []afalg.Route{afalg.RouteSocketpair},
		"the kernel refuses it with its own errno and gives no socket, but may load the af_alg module first").With(plan.Loads),
	plan.Stricter.Gap("foreign-abi", foreignRoutes,
		"programs for another ABI, such as 32-bit ones, are killed by SIGSYS at their first call").With(plan.Kills),
	plan.Stricter.Gap(string(afalg.RouteIOUring), []afalg.Route{afalg.RouteIOUring},
		"io_uring is closed as a whole, with ENOSYS"),
	plan.Stricter.Gap("no-new-privileges", nil,
		"in units that run without CAP_SYS_ADMIN, setuid programs such as sudo gain nothing any more; one is user@.service, with everything that a desktop starts (--except leaves a unit out)"),
}

// machineGaps tells where systemd ignores RestrictAddressFamilies: 252 skips
// machines whose native ABI has socketcall, and those that it does not list.
func (s *systemd) machineGaps() []plan.Gap {
	if s.abi.Socketcall == 0 && s.abi.Name != "loong64" {
		return nil
	}
	return []plan.Gap{plan.Wider.Gap(string(afalg.RouteSocket), append(slices.Clone(socketRoutes), afalg.RouteCompatSocketcall),
		fmt.Sprintf("systemd ignores RestrictAddressFamilies on %s: AF_ALG stays open", s.abi.Name))}
}

// classGaps: systemd tells sockets apart by their family, and sees no option.
func (s *systemd) classGaps() []plan.Gap {
	gaps := s.plan.ClassGaps(s.closing())
	if s.plan.UserNamespaces && s.closing().UserNamespaces {
		gaps = append(gaps, setnsGap)
	}
	return gaps
}

// closing: systemd 252 knows no filters for loong64.
func (s *systemd) closing() plan.Closing {
	return plan.Closing{
		Sockets:        func(c afalg.Sockets) bool { return c.Whole() && len(s.machineGaps()) == 0 },
		UserNamespaces: s.abi.Name != "loong64",
	}
}

// setnsGap is what RestrictNamespaces=~user refuses besides. [src: systemd 252,
// src/shared/seccomp-util.c, seccomp_restrict_namespaces]
var setnsGap = plan.Stricter.Gap("setns", nil,
	"a unit may not enter a user namespace that others made either, nor call setns(2) without a type of namespace; clone3 answers ENOSYS, so that C libraries take clone")

func (s *systemd) ruleGaps() []plan.Gap {
	opener := s.granter()
	gaps := opener.gaps(s.Grants)
	for i, g := range gaps {
		rule := s.rule(g.Name)
		switch stopped := s.stopped(rule); {
		case g.Kind != plan.Stricter:
		case len(stopped) > 0:
			gaps[i] = plan.Breaking.Gap(g.Name, s.routesOf(rule), fmt.Sprintf("%s is here and loses %s, which the rule allows it: what it is for fails; grant it with --grant %s", strings.Join(stopped, ", "), strings.Join(opener.opens(rule), ", "), g.Name))
		case slices.Contains(s.unasked, g.Name):
			gaps[i] = plan.Wider.Gap(g.Name, socketRoutes, fmt.Sprintf("AF_ALG is open with every algorithm to %s, which runs in the initramfs alone%s; taken on unasked, since a boot would stop", opener.holder(g.Name), plan.Steered(rule)))
		}
	}
	return gaps
}

// granter opens to units.
func (s *systemd) granter() granter {
	holder := func(rule string) string {
		var units []string
		for _, name := range sortedKeys(s.holds) {
			if slices.Contains(s.holds[name], rule) {
				units = append(units, name)
			}
		}
		return strings.Join(units, ", ")
	}
	exact := func(r policy.Rule) bool { return len(r.Binaries)+len(r.Users)+len(r.Capabilities) == 0 }
	return granter{s.plan, s.closing(), socketRoutes, holder, exact}
}

// routesOf are the routes of a gap about a rule: none if it opens no AF_ALG.
func (s *systemd) routesOf(r policy.Rule) []afalg.Route {
	if !r.OpensAlgorithms() {
		return nil
	}
	return socketRoutes
}

func (s *systemd) rule(name string) policy.Rule {
	i := slices.IndexFunc(s.plan.Rules, func(r policy.Rule) bool { return r.Name == name })
	return s.plan.Rules[i]
}

// stopped lists the units of a rule that are here and lose what it allows.
func (s *systemd) stopped(rule policy.Rule) []string {
	var units []string
	for _, name := range rule.Units {
		if !s.restricts(name) || len(s.facts.Matches(name)) == 0 {
			continue
		}
		kept := s.granter().opens(s.heldRules(name)...)
		if slices.ContainsFunc(s.granter().opens(rule), func(what string) bool { return !slices.Contains(kept, what) }) {
			units = append(units, name)
		}
	}
	return units
}

// closes reports whether the output takes AF_ALG from a unit.
func (s *systemd) closes(name string) bool { return s.restricts(name) && !s.opensALG(name) }

// restricts reports whether the output is about a unit.
func (s *systemd) restricts(name string) bool {
	if s.untouched(name) {
		return false
	}
	if len(s.Units) == 0 {
		return strings.HasSuffix(name, ".service")
	}
	return slices.Contains(s.Units, name) || slices.Contains(s.Units, unit.Template(name))
}

// unitGaps are about single units, by what they say themselves.
func (s *systemd) unitGaps() []plan.Gap {
	told := map[string]bool{}
	for _, rule := range s.plan.Rules {
		for _, name := range s.stopped(rule) {
			told[name] = true
		}
	}
	var gaps []plan.Gap
	for _, name := range sortedKeys(s.facts) {
		own := s.facts[name].Families
		lacks := slices.DeleteFunc(s.reopened(name), func(f string) bool { return slices.Contains(own.Allowed(), f) })
		namespaces := strings.Fields(s.facts[name].Values["RestrictNamespaces"])
		if slices.Contains(namespaces, "user") && s.plan.UserNamespaces && s.restricts(name) && !s.mayMakeUserNamespaces(name) {
			gaps = append(gaps, plan.Stricter.Gap(name, nil, "its own RestrictNamespaces= leaves it user namespaces, so it may make some, and loses that; write a rule that allows them to this unit and grant that, or leave the unit out by --except"))
		}
		if len(lacks) > 0 && s.restricts(name) {
			gaps = append(gaps, plan.Stricter.Gap(name, nil, fmt.Sprintf("it holds a rule that allows %s, which its own RestrictAddressFamilies= does not; if it needs that, add it to the unit", strings.Join(lacks, ", "))))
		}
		switch {
		case own.Lists(familyALG) && s.closes(name) && !told[name]:
			gaps = append(gaps, plan.Stricter.Gap(name, socketRoutes, "it names AF_ALG in RestrictAddressFamilies= itself, so it probably uses it, and loses it; write a rule with this unit and grant that, or leave the unit out by --except"))
		case s.opensALG(name) && !slices.Contains(own.Allowed(), "AF_NETLINK"):
			gaps = append(gaps, plan.Stricter.Gap(name, nil, "it holds a rule, and its own list has no AF_NETLINK, which programs of libkcapi need beside AF_ALG; if it runs them, add that to the unit"))
		}
	}
	return gaps
}

// hiddenGaps are about drop-ins of the same name that this output leaves where
// they are: from an earlier output, or an earlier version of install.
func (s *systemd) hiddenGaps() []plan.Gap {
	if len(s.Units) > 0 {
		return nil
	}
	var gaps []plan.Gap
	written := s.targets()
	for _, name := range sortedKeys(s.facts) {
		for _, p := range s.facts[name].Hiding() {
			replaced := slices.Contains(written, strings.TrimSuffix(path.Base(path.Dir(p)), ".d"))
			if !replaced && !slices.Contains(s.Gone, p) && s.closes(name) {
				gaps = append(gaps, plan.Wider.Gap(name, socketRoutes, fmt.Sprintf("%s is nearer to it than the drop-in for every service and hides that; if an earlier version of install wrote it, run that install again, else remove it", p)))
			}
		}
	}
	return gaps
}

// containerUnits start containers, which inherit their filters.
var containerUnits = []string{"containerd.service", "crio.service", "docker.service", "k3s-agent.service", "k3s.service", "podman.service", "rke2-agent.service", "rke2-server.service"}

// containerGaps: a filter that denies comes before one that asks the agent, so
// that nothing is left of a grant to a container.
func (s *systemd) containerGaps() []plan.Gap {
	if len(s.plan.Grants) == 0 {
		return nil
	}
	var units []string
	for _, name := range containerUnits {
		if _, here := s.facts[name]; here && s.closes(name) {
			units = append(units, name)
		}
	}
	if units == nil {
		return nil
	}
	return []plan.Gap{plan.Breaking.Gap("container-grants", socketRoutes, fmt.Sprintf("containers inherit what is closed to %s, so that no grant of the policy to a container holds; leave what starts them out (%s), and close them by \"afalg-policy install\"", strings.Join(units, ", "), leftOut(units)))}
}

// leftOut are the flags that leave units as they are.
func leftOut(units []string) string {
	var flags []string
	for _, name := range units {
		flags = append(flags, "--except "+name+" --accept "+name)
	}
	return strings.Join(flags, " ")
}

// opens reports whether one of the gaps leaves AF_ALG open to somebody.
func opens(gaps []plan.Gap) bool {
	return slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Kind == plan.Wider && len(g.Routes) > 0 })
}
