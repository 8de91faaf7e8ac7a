package gen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// selinuxErrno is what the kernel answers where its policy denies.
const selinuxErrno = "EACCES"

// selinuxRoutes are all but the inherited descriptor. The kernel asks before it
// loads a module.
func selinuxRoutes() []afalg.Route { return appArmorRoutes() }

// selinuxGaps are those of any output.
var selinuxGaps []plan.Gap

func (s *selinux) gaps() []plan.Gap {
	gaps := s.ruleGaps()
	gaps = append(gaps, s.plan.ZeroCopyGaps(len(s.holdersOf(algClass)) > 0)...)
	gaps = append(gaps, s.classGaps()...)
	if len(s.plan.Grants) > 0 {
		gaps = append(gaps, plan.Stricter.Gap("container-grants", nil,
			"no grant of the policy to a container holds: its domain is denied, sockets from the agent too; run it in a domain that --domain names"))
	}
	if got := s.plan.SocketErrno.Name; got != selinuxErrno {
		if got == "" {
			got = plan.DefaultSocketErrno
		}
		gaps = append(gaps, plan.Different.Gap("socket-errno", selinuxRoutes(), fmt.Sprintf("SELinux answers %s, not %s", selinuxErrno, got)))
	}
	return append(gaps, selinuxGaps...)
}

// ruleGaps says what becomes of each rule about something that is closed here.
func (s *selinux) ruleGaps() []plan.Gap {
	var wider, stricter []plan.Gap
	for _, r := range s.plan.Rules {
		opened := strings.Join(s.openedBy(r), ", ")
		switch domains := strings.Join(s.Domains[r.Name], ", "); {
		case opened == "":
		case domains == "":
			stricter = append(stricter, plan.Stricter.Gap(r.Name, nil,
				fmt.Sprintf("no domain holds the rule; --domain %s=TYPE opens %s to that domain", r.Name, opened)))
		default:
			var routes []afalg.Route
			if opensClass(r, algClass) {
				routes = selinuxRoutes()
			}
			wider = append(wider, plan.Wider.Gap(r.Name, routes,
				fmt.Sprintf("%s is open to the domain %s, to each binary and user in it%s", opened, domains, plan.Steered(r))))
		}
	}
	return append(wider, stricter...)
}

// openedBy says what a domain gets with a rule: whole classes.
func (s *selinux) openedBy(r policy.Rule) []string {
	var names []string
	for _, class := range s.denied {
		switch {
		case !opensClass(r, class):
		case class == algClass:
			names = append(names, "AF_ALG with every algorithm")
		default:
			names = append(names, class)
		}
	}
	return names
}

// classGaps are about the denied classes: what SELinux does not see, and what it
// cannot tell apart.
func (s *selinux) classGaps() []plan.Gap {
	var open, more []string
	for _, class := range s.namedClasses() {
		o, m := s.partsOf(class)
		open, more = append(open, o...), append(more, m...)
	}
	var gaps []plan.Gap
	if open != nil {
		gaps = append(gaps, plan.Wider.Gap(policy.GapSockets, nil, "these stay open: "+strings.Join(open, "; ")))
	}
	if more != nil {
		gaps = append(gaps, plan.Stricter.Gap(policy.GapSockets, nil, strings.Join(more, "; ")))
	}
	if options := (plan.Opened{Options: s.plan.ClosedOptions()}).Names(); options != nil {
		gaps = append(gaps, plan.Wider.Gap(policy.GapSocketOptions, nil, strings.Join(options, ", ")+": can be set, since SELinux has one permission for all options"))
	}
	return append(gaps, s.usernsGaps()...)
}

// namedClasses are those of sockets as the policy names them.
func (s *selinux) namedClasses() []afalg.Sockets {
	var all []afalg.Sockets
	for _, f := range s.plan.Families {
		all = append(all, afalg.Sockets{Family: f.Number})
	}
	for _, socket := range s.plan.Sockets {
		all = append(all, socket.Class())
	}
	return all
}

// partsOf says what of a class stays open, and what is closed besides it.
func (s *selinux) partsOf(named afalg.Sockets) (open, more []string) {
	found := false
	for _, class := range sortedKeys(classMembers()) {
		if extentOf(class, append(named.Also(), named)) == noneOf {
			continue
		}
		found = true
		switch {
		case slices.Contains(s.Lacks, class):
			open = append(open, fmt.Sprintf("%s, since the host's policy has no class %s", named, class))
		case !slices.Contains(s.denied, class):
			open = append(open, fmt.Sprintf("%s, as far as SELinux asks about it by %s, which other sockets have too", named, class))
		case extentOf(class, s.closed()) == partOf:
			more = append(more, fmt.Sprintf("SELinux knows %s as %s alone, so all of that is closed", named, class))
		}
	}
	if !found {
		open = append(open, fmt.Sprintf("%s, which has no class that is known here", named))
	}
	return open, more
}

func (s *selinux) usernsGaps() []plan.Gap {
	switch {
	case !s.plan.UserNamespaces:
		return nil
	case slices.Contains(s.Lacks, usernsClass):
		return []plan.Gap{plan.Wider.Gap(policy.GapUserNamespaces, nil, "anybody can make one, since the host's policy has no class "+usernsClass)}
	case !s.userns:
		return []plan.Gap{plan.Wider.Gap(policy.GapUserNamespaces, nil, "kernels before 6.1 do not ask SELinux about them; say with --kernel which one the host has")}
	}
	return nil
}
