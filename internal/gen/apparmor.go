package gen

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"text/template"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// AppArmorOptions are those of the AppArmor target.
type AppArmorOptions struct {
	Common
	// Abstraction asks for the rules alone, for other profiles to include.
	Abstraction bool
	// Profile is the name of the container profile; DefaultProfile if empty.
	Profile string
}

// DefaultProfile is the container profile's name. It is not the name of any
// runtime's own profile, which the runtime would load over ours.
const DefaultProfile = "afalg-policy-container"

// abstractionName is the abstraction's file below /etc/apparmor.d/abstractions.
const abstractionName = "afalg-policy"

// AppArmor renders an abstraction with the deny rules, or the default profile
// of containers with them in it.
func AppArmor(p *plan.Plan, o AppArmorOptions) ([]File, []Gap, error) {
	a := appArmor{AppArmorOptions: o, plan: p}
	if err := a.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := a.gaps()
	if err := a.settle(gaps); err != nil {
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
}

// profileName admits what needs no quotes, holds no pattern and stays in its
// directory.
var profileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

func (a *appArmor) resolve() error {
	if a.Abstraction && a.Profile != "" {
		return fmt.Errorf("a profile's name and an abstraction: only one of them")
	}
	if a.Profile == "" {
		a.Profile = DefaultProfile
	}
	switch {
	case !profileName.MatchString(a.Profile):
		return fmt.Errorf("profile name %q: up to 128 letters, digits, _ . and -, the first no . or -", a.Profile)
	case a.Profile == "unconfined":
		return fmt.Errorf("profile name %q means no profile to AppArmor; choose another", a.Profile)
	}
	_, err := a.granted(a.plan)
	return err
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

func (a *appArmor) gaps() []Gap {
	holder := "every process under the profile " + a.Profile
	if a.Abstraction {
		holder = "each profile that includes this file"
	}
	gaps := grantGaps(a.plan, a.Grants, appArmorRoutes(), func(string) string { return holder })
	for _, f := range a.plan.Families {
		if _, ok := appArmorFamily(f.Number); !ok {
			gaps = append(gaps, Gap{Wider, f.Name, nil, "AppArmor has no name for this family, so it stays open"})
		}
	}
	if got := a.plan.SocketErrno.Name; got != appArmorErrno {
		if got == "" {
			got = plan.DefaultSocketErrno
		}
		gaps = append(gaps, Gap{Different, "socket-errno", appArmorRoutes(),
			fmt.Sprintf("AppArmor answers %s, not %s", appArmorErrno, got)})
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

// rules denies AF_ALG, unless a grant opens it, and the policy's families.
func (a *appArmor) rules(indent string) string {
	var b strings.Builder
	if len(a.Grants) == 0 {
		fmt.Fprintf(&b, "%sdeny network alg,\n", indent)
	}
	for _, f := range a.plan.Families {
		if name, ok := appArmorFamily(f.Number); ok {
			fmt.Fprintf(&b, "%sdeny network %s,\n", indent, name)
		}
	}
	return b.String()
}

func (a *appArmor) render(gaps []Gap) (string, error) {
	head := a.header(a.plan, a.notes(), gaps)
	if a.Abstraction {
		return head + "\n" + a.rules(""), nil
	}
	profile, err := containerProfile(a.Profile)
	if err != nil {
		return "", err
	}
	before, after, ok := strings.Cut(profile, networkRule)
	if !ok || strings.Contains(after, networkRule) {
		return "", fmt.Errorf("the container profile has not one line %q", networkRule)
	}
	return head + before + networkRule + a.rules("  ") + after, nil
}

func (a *appArmor) notes() []string {
	use := fmt.Sprintf("Load it with apparmor_parser -r, again after each change, and run containers with apparmor=%s.", a.Profile)
	if a.Abstraction {
		use = "Include it in a profile as <abstractions/" + abstractionName + ">, and load that profile again with apparmor_parser -r."
	}
	return []string{
		use,
		"Nothing here holds for an unconfined process, nor under an ABI without network mediation (abi/kernel-5.4-vanilla).",
	}
}

// The profile is that of github.com/moby/profiles/apparmor, which does not
// export it. A test compares the copy with the module's source.
//
//go:generate go test . -run ^TestAppArmorTemplate$ -update
//go:embed apparmor_container.tmpl
var containerTemplate string

// networkRule is the template's own rule; a deny rule beside it wins.
const networkRule = "\n  network,\n"

// containerProfile renders the template as on a host that has the files of
// AppArmor itself and whose daemon is unconfined.
func containerProfile(name string) (string, error) {
	t, err := template.New("profile").Parse(containerTemplate)
	if err != nil {
		return "", fmt.Errorf("parsing the container profile: %w", err)
	}
	var b strings.Builder
	err = t.Execute(&b, map[string]any{
		"Name":          name,
		"DaemonProfile": "unconfined",
		"Imports":       []string{"#include <tunables/global>"},
		"InnerImports":  []string{"#include <abstractions/base>"},
	})
	if err != nil {
		return "", fmt.Errorf("rendering the container profile: %w", err)
	}
	return b.String(), nil
}
