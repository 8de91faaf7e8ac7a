package gen

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// AppArmorOptions are those of the AppArmor target. ABI and NoIncludes are
// facts of the host that will load the container profile.
type AppArmorOptions struct {
	Common
	// Abstraction asks for the rules alone, for other profiles to include.
	Abstraction bool
	// Profile is the name of the container profile; DefaultProfile if empty.
	Profile string
	// ABI is the feature ABI that the container profile declares: a file in
	// /etc/apparmor.d/abi, ABIKernel or ABINone; DefaultABI if empty.
	ABI string
	// NoIncludes keeps the container profile from including the tunables and
	// abstractions of /etc/apparmor.d.
	NoIncludes bool
}

// DefaultProfile is the container profile's name. It is not the name of any
// runtime's own profile, which the runtime would load over ours.
const DefaultProfile = "afalg-policy-container"

// abstractionName is the abstraction's file below /etc/apparmor.d/abstractions.
const abstractionName = "afalg-policy"

// AppArmor renders an abstraction with the deny rules, or the default profile
// of containers with them in it.
func AppArmor(p *plan.Plan, o AppArmorOptions) ([]File, []plan.Gap, error) {
	a := appArmor{AppArmorOptions: o, plan: p}
	if err := a.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := a.gaps()
	if err := a.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	text, err := a.render(gaps)
	if err != nil {
		return nil, gaps, err
	}
	return []File{{Path: a.name(), Data: []byte(text)}}, gaps, nil
}

type appArmor struct {
	AppArmorOptions
	plan *plan.Plan
	held []policy.Rule // what the grants name
}

// profileName admits what means itself within quotes, and stays in its
// directory as a file's name.
var profileName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_. -]{0,126}[A-Za-z0-9_.-]$|^[A-Za-z0-9_]$`)
})

func (a *appArmor) resolve() error {
	if a.Abstraction {
		if err := a.resolveAbstraction(); err != nil {
			return err
		}
	}
	if a.Profile == "" {
		a.Profile = DefaultProfile
	}
	switch {
	case !profileName().MatchString(a.Profile):
		return fmt.Errorf("profile name %q: up to 128 letters, digits, spaces, _ . and -, the first no space, . or -, the last no space", a.Profile)
	case a.Profile == "unconfined":
		return fmt.Errorf("profile name %q means no profile to AppArmor; choose another", a.Profile)
	}
	if a.ABI == "" {
		a.ABI = DefaultABI
	}
	if !abiName().MatchString(a.ABI) {
		return fmt.Errorf("abi %q: the name of a file in /etc/apparmor.d/abi, %s, or %s", a.ABI, ABIKernel, ABINone)
	}
	var err error
	a.held, err = a.plan.RulesNamed(a.Grants)
	return err
}

// resolveAbstraction refuses what only a whole profile can state.
func (a *appArmor) resolveAbstraction() error {
	switch {
	case a.Profile != "":
		return fmt.Errorf("a profile's name and an abstraction: only one of them")
	case a.ABI != "":
		return fmt.Errorf("an abi and an abstraction: only one of them; the profile that includes the abstraction declares its abi")
	case a.NoIncludes:
		return fmt.Errorf("an abstraction has no includes to leave out")
	}
	return nil
}

func (a *appArmor) name() string {
	if a.Abstraction {
		return abstractionName
	}
	return a.Profile
}

// appArmorErrno is what the kernel answers where a profile denies.
const appArmorErrno = "EACCES"

// appArmorRoutes are all but the inherited descriptor: the rule stands in the
// kernel's socket hook, where every route arrives.
func appArmorRoutes() []afalg.Route {
	var routes []afalg.Route
	for _, info := range afalg.Routes() {
		if info.Route != afalg.RouteInherited {
			routes = append(routes, info.Route)
		}
	}
	return routes
}

// appArmorGaps are those of any output. The type of AF_ALG sockets has a name,
// so by none of the routes the module is loaded.
var appArmorGaps = []plan.Gap{
	plan.Different.Gap("socket-types", appArmorRoutes(),
		"before apparmor_parser 5.0 a rule does not reach the socket types that AppArmor has no name for (0 and 6 to 9); the kernel gives no socket of them, but may load the family's module first"),
}

func (a *appArmor) gaps() []plan.Gap {
	holder := "every process under the profile " + a.Profile
	if a.Abstraction {
		holder = "each profile that includes this file"
	}
	gaps := a.granter(holder).gaps(a.Grants)
	if !a.Abstraction {
		gaps = append(gaps, a.containerGaps()...)
	}
	gaps = append(gaps, a.plan.ZeroCopyGaps(opens(gaps))...)
	gaps = append(gaps, a.classGaps()...)
	gaps = append(gaps, appArmorGaps...)
	for _, f := range a.plan.Families {
		if _, ok := appArmorFamily(f.Number); !ok {
			gaps = append(gaps, plan.Wider.Gap(f.Name, nil, "AppArmor has no name for this family, so it stays open"))
		}
		if f.Number == unix.AF_INET || f.Number == unix.AF_INET6 {
			gaps = append(gaps, plan.Wider.Gap(f.Name, nil, "before apparmor_parser 5.0 AppArmor has no name for SOCK_DCCP, so sockets of that type stay open"))
		}
	}
	if got := a.plan.SocketErrno.Name; got != appArmorErrno {
		if got == "" {
			got = plan.DefaultSocketErrno
		}
		gaps = append(gaps, plan.Different.Gap("socket-errno", appArmorRoutes(),
			fmt.Sprintf("AppArmor answers %s, not %s", appArmorErrno, got)))
	}
	return gaps
}

// appArmorFamily returns a family's name in AppArmor's rules.
func appArmorFamily(n uint32) (string, bool) {
	name, ok := strings.CutPrefix(afalg.FamilyName(n), "AF_")
	if !ok || name == "DECnet" {
		return "", false
	}
	return strings.ToLower(name), true
}

// denied lists the families to close, each once: AF_ALG, Docker's in a container
// profile, and the policy's. What a grant opens is not among them.
func (a *appArmor) denied() []uint32 {
	all := []uint32{afalg.Family}
	if !a.Abstraction {
		all = append(all, dockerFamilies...)
	}
	for _, f := range a.plan.Families {
		if !slices.Contains(all, f.Number) {
			all = append(all, f.Number)
		}
	}
	return slices.DeleteFunc(all, a.granted)
}

// granted reports whether a grant opens a family.
func (a *appArmor) granted(family uint32) bool {
	if family == afalg.Family {
		return slices.ContainsFunc(a.held, policy.Rule.OpensAlgorithms)
	}
	return slices.ContainsFunc(plan.OpenedBy(a.held).Sockets, func(s afalg.Sockets) bool { return s.Family == family })
}

func (a *appArmor) rules(indent string) string {
	var b strings.Builder
	for _, n := range a.denied() {
		if name, ok := appArmorFamily(n); ok {
			fmt.Fprintf(&b, "%sdeny network %s,\n", indent, name)
		}
	}
	for _, rule := range a.classRules() {
		b.WriteString(indent + rule + ",\n")
	}
	return b.String()
}

func (a *appArmor) render(gaps []plan.Gap) (string, error) {
	head := a.Header(a.plan, a.notes(), gaps)
	if a.Abstraction {
		return head + "\n" + a.rules(""), nil
	}
	profile, err := a.containerProfile()
	if err != nil {
		return "", err
	}
	return head + "\n" + profile, nil
}

// strictLoad has apparmor_parser refuse a profile whose network rules it would
// drop, by default in silence; versions before 3.0, which drop them on most
// kernels, do not know the option and refuse as well.
const strictLoad = "apparmor_parser -r --Werror=rule-not-enforced"

func (a *appArmor) notes() []string {
	use := fmt.Sprintf("Load it with %s, again after each change, and run containers with --security-opt \"apparmor=%s\".", strictLoad, a.Profile)
	if a.Abstraction {
		use = "Include it as <abstractions/" + abstractionName + "> in a profile whose abi has network mediation, such as <abi/3.0>, and load that profile again with " + strictLoad + "."
	}
	return append([]string{use, "Nothing here holds for an unconfined process."}, breakNotes(a.plan)...)
}
