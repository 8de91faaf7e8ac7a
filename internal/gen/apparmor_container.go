package gen

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// The values of AppArmorOptions.ABI that are more than the name of a file.
const (
	// DefaultABI is that of AppArmor 3.0, the first whose rules mediate sockets
	// on any kernel; under it "network," means Unix sockets too. Every later
	// AppArmor has the file.
	DefaultABI = "3.0"
	// ABIKernel stands for all that the kernel has. apparmor_parser knows it
	// from 5.0 on, and refuses the profile before.
	ABIKernel = "kernel"
	// ABINone leaves the choice to the configuration of apparmor_parser.
	ABINone = "none"
)

// mediatingABIs have network mediation, without which apparmor_parser drops
// every network rule and says nothing.
var mediatingABIs = []string{DefaultABI, "4.0", ABIKernel}

// abiName admits the name of a file and no path.
var abiName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`) })

// dockerFamilies are those that Docker's seccomp profile denies to socket, less
// AF_ALG. As it cannot see the family of a socketcall, newer versions of
// Docker's AppArmor profile deny them too. (AppArmor has no name for
// AF_DECnet.)
var dockerFamilies = []uint32{
	unix.AF_AX25, unix.AF_IPX, unix.AF_APPLETALK, unix.AF_NETROM, unix.AF_ROSE, unix.AF_ECONET,
	unix.AF_ATMSVC, unix.AF_IRDA, unix.AF_WANPIPE, unix.AF_ISDN, unix.AF_CAIF, unix.AF_VSOCK,
}

// containerGaps are those of the profile that the rules stand in.
func (a *appArmor) containerGaps() []plan.Gap {
	gaps := []plan.Gap{plan.Stricter.Gap("docker-families", nil,
		"AF_VSOCK and obsolete families are denied as well; newer AppArmor profiles of Docker do the same, since its seccomp profile cannot see them in a socketcall")}
	const dropped = "apparmor_parser drops every network rule in silence"
	switch {
	case a.ABI == ABINone:
		gaps = append(gaps, plan.Wider.Gap("abi", appArmorRoutes(),
			"where parser.conf has no policy-features with network mediation, "+dropped))
	case !slices.Contains(mediatingABIs, a.ABI):
		gaps = append(gaps, plan.Wider.Gap("abi", appArmorRoutes(),
			"unless /etc/apparmor.d/abi/"+a.ABI+" has network mediation, "+dropped))
	}
	return gaps
}

// The profile is that of github.com/moby/profiles/apparmor, which does not
// export it. A test compares the copy with the module's source.
//
//go:generate go test . -run ^TestAppArmorTemplate$ -update
//go:embed apparmor_container.tmpl
var containerTemplate string

// networkRules are the template's own, which ours replace.
const networkRules = `
  network,
  # Disallow AF_ALG (Linux kernel crypto API); see https://copy.fail/
  deny network alg,
`

// containerProfile is Docker's profile with our rules. A deny rule wins over
// every rule that allows.
func (a *appArmor) containerProfile() (string, error) {
	profile, err := dockerProfile(a.AppArmorOptions)
	if err != nil {
		return "", err
	}
	before, after, ok := strings.Cut(profile, networkRules)
	if !ok || strings.Contains(after, networkRules) {
		return "", fmt.Errorf("the container profile has not once the lines %q", networkRules)
	}
	return before + "\n  network,\n" + a.rules("  ") + after, nil
}

// dockerProfile renders the template as Docker does, for a daemon that is
// unconfined, on a host that has the files that the options name.
func dockerProfile(o AppArmorOptions) (string, error) {
	t, err := template.New("profile").Parse(containerTemplate)
	if err != nil {
		return "", fmt.Errorf("parsing the container profile: %w", err)
	}
	data := map[string]any{
		"Abi":           abiPath(o.ABI),
		"Name":          o.Profile,
		"DaemonProfile": "unconfined",
		"Imports":       []string{"#include <tunables/global>"},
		"InnerImports":  []string{"#include <abstractions/base>"},
	}
	if o.NoIncludes {
		data["Imports"] = []string{"@{PROC}=/proc/"}
		data["InnerImports"] = nil
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("rendering the container profile: %w", err)
	}
	return b.String(), nil
}

// abiPath is what the abi line names; without a name there is no line.
func abiPath(abi string) string {
	switch abi {
	case ABINone:
		return ""
	case ABIKernel:
		return abi
	}
	return "abi/" + abi
}
