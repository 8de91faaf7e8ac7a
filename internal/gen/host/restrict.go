package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const (
	restrictKey   = "crypto.af_alg_restrict"
	levelOne      = policy.BuiltinPrefix + "linux-7.3" // what level 1 allows
	restrictLevel = "af-alg-restrict"                  // the name of its gap
)

// restrictSince is the Linux that has the sysctl.
var restrictSince = kernel.Version{Major: 7, Minor: 3}

// restrict sets the kernel's own switch to the strictest level that lets every rule
// work. It never sets 0, which opens AF_ALG to everybody.
func (d *decision) restrict() {
	now, has := d.facts.Sysctls[restrictKey]
	if d.facts.Before(restrictSince) && !has {
		return
	}
	level, why := "2", "No rule of the policy allows an algorithm."
	if len(d.needs.types) > 0 {
		level, why = "1", "Every rule of the policy works with what Linux itself allows."
		if denied := beyondLevelOne(d.plan); len(denied) > 0 {
			d.gaps = append(d.gaps, plan.Stricter.Gap(restrictLevel, nil, fmt.Sprintf(
				"Linux %s and later deny %s unless %s is 0, which opens AF_ALG to everybody: it is left as it is", restrictSince, strings.Join(denied, ", "), restrictKey)))
			return
		}
	}
	s := Sysctl{Key: restrictKey, Value: level, Module: "af_alg", Optional: true, About: About{
		Why: why, Takes: TakesNow, Undo: "remove the line; sysctl -w " + restrictKey + "=1 is the default of Linux",
		Open: []string{"the moment between the load of af_alg and the udev rule that sets it: the kernel starts with 1"},
	}}
	switch level {
	case "2":
		s.Closes, s.Breaks = []string{"AF_ALG"}, familyCode.breaks
	case "1":
		s.Closes = []string{"algorithms that are not on Linux's list"}
		s.Open = append(s.Open, "what is on Linux's list, to every process, or to all with CAP_NET_ADMIN or CAP_SYS_ADMIN")
	}
	if has {
		s.Now = "it is " + now + " now"
	}
	d.Sysctls = append(d.Sysctls, s)
}

// namespaces closes user namespaces for everybody, unless a rule opens them.
func (d *decision) namespaces() {
	if !d.plan.UserNamespaces || d.needs.opened.UserNamespaces || d.facts.Config["USER_NS"] == "n" {
		return
	}
	breaks := []string{}
	for _, c := range policy.Classes() {
		if c.UserNamespaces && c.Breaks != "" {
			breaks = append(breaks, c.Breaks)
		}
	}
	for _, s := range namespaceSysctls {
		s.Why, s.Closes, s.Takes = "The policy denies them.", []string{"user namespaces"}, TakesNow
		s.Breaks = breaks
		if now, ok := d.facts.Sysctls[s.Key]; ok {
			s.Now = "it is " + now + " now"
		}
		d.Sysctls = append(d.Sysctls, s)
	}
}

// namespaceSysctls are switches of user namespaces. The first closes them for
// everybody, root included; the others are what Debian and Ubuntu have besides, for
// whoever sets the first back.
var namespaceSysctls = []Sysctl{
	{Key: "user.max_user_namespaces", Value: "0", About: About{
		Open: []string{"user namespaces that exist"},
		Undo: "remove the line, and set the value that it had: half of kernel.threads-max",
	}},
	{Key: "kernel.unprivileged_userns_clone", Value: "0", Optional: true, About: About{
		Open: []string{"by this alone, whoever has CAP_SYS_ADMIN; only Debian's and some others' kernels have it"},
		Undo: "remove the line; 1 is Debian's default",
	}},
	{Key: "kernel.apparmor_restrict_unprivileged_userns", Value: "1", Optional: true, About: About{
		Open: []string{"by this alone, whoever has CAP_SYS_ADMIN, or an AppArmor profile that allows userns; it denies no namespace, but its rights"},
		Undo: "remove the line; 1 is Ubuntu's default since 23.10",
	}},
}

// beyondLevelOne lists what rules allow and level 1 denies, each with its rule. A
// rule for root alone counts as privileged: root usually is.
func beyondLevelOne(p *plan.Plan) (denied []string) {
	linux, _, err := plan.Load(levelOne, plan.ReadNamed)
	if err != nil {
		return []string{err.Error()} // then nothing is set
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		request := plan.Request{Capabilities: privileges(r)}
		for _, a := range r.Algorithms {
			if request.Algorithm = a.Algorithm; !plan.Decide(linux, request).Allowed {
				denied = append(denied, fmt.Sprintf("%s of rule %s", a.Algorithm, r.Name))
			}
		}
	}
	return denied
}

// privileges are capabilities that everybody has for whom a rule holds, as far as
// level 1 asks.
func privileges(r *policy.Rule) []string {
	root := len(r.Users) > 0 && !slices.ContainsFunc(r.Users, func(u string) bool { return u != "root" && u != "0" })
	asked := len(r.Capabilities) > 0 && !slices.ContainsFunc(r.Capabilities, func(c string) bool { return c != "CAP_NET_ADMIN" && c != "CAP_SYS_ADMIN" })
	switch {
	case asked:
		return r.Capabilities[:1]
	case root:
		return []string{"CAP_SYS_ADMIN"}
	}
	return nil
}
