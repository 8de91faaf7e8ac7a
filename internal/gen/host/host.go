// Package host renders a plan to settings of a whole host: what modprobe refuses
// to load, what the kernel does not initialise, and sysctls. These close what the
// policy uses nowhere; they do not see who asks.
package host

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Options are those of the host target. Facts of the host are no option: they are
// an input beside the plan.
type Options struct {
	gen.Common
	// Role is the pool of nodes that a MachineConfig is for; DefaultRole if empty.
	Role string
}

// Settings are what a host is to be given. Each list is sorted, and empty where
// nothing is to be set.
type Settings struct {
	Modules   []ModprobeRule
	Arguments []KernelArgument
	Sysctls   []Sysctl
}

// About is what each setting says of itself, for comments, reports and people.
type About struct {
	Why    string   // why it is set: sentences
	Closes []string // in the words of the policy: "aead", "AF_RXRPC", "AF_NETLINK protocol NETLINK_XFRM", "user namespaces"
	Breaks []string // known users that it stops
	Open   []string // what it leaves open
	Now    string   // what is known of this host that bears on it: "is loaded now: …"; empty if nothing
	Takes  Takes
	Undo   string // how it is taken back by hand
}

// Takes is when a setting takes effect.
type Takes string

const (
	TakesNow    Takes = "now"
	TakesReboot Takes = "after a reboot"
	TakesNever  Takes = "never" // the kernel has it built in
)

// ModprobeRule stops a module from being loaded on demand, or by name.
type ModprobeRule struct {
	Module string // with underscores; or an alias of modules, as "net-pf-31"
	About
}

// KernelArgument is an argument of the kernel's command line.
type KernelArgument struct {
	Name  string // "initcall_blacklist"
	Value string // "algif_aead_init"
	About
}

// Sysctl is a setting below /proc/sys.
type Sysctl struct {
	Key   string // "crypto.af_alg_restrict"
	Value string
	// Module must be loaded before the setting exists; empty if it always does.
	Module string
	// Optional means that many kernels lack the setting.
	Optional bool
	About
}

// CommandLine is what stands on it: one argument a name, its values joined by commas.
func (s Settings) CommandLine() []string {
	var names []string
	values := map[string][]string{}
	for _, a := range s.Arguments {
		if values[a.Name] == nil {
			names = append(names, a.Name)
		}
		values[a.Name] = append(values[a.Name], a.Value)
	}
	for i, name := range names {
		names[i] = name + "=" + strings.Join(values[name], ",")
	}
	return names
}

// Empty reports whether nothing is to be set.
func (s Settings) Empty() bool {
	return len(s.Modules) == 0 && len(s.Arguments) == 0 && len(s.Sysctls) == 0
}

// each calls do for what every setting says of itself.
func (s Settings) each(do func(name string, a About)) {
	for _, m := range s.Modules {
		do(m.Module, m.About)
	}
	for _, a := range s.Arguments {
		do(a.Name+"="+a.Value, a.About)
	}
	for _, c := range s.Sysctls {
		do(c.Key, c.About)
	}
}

// Decide says what a host is to be given so that it closes what the policy uses
// nowhere, and what that cannot express. Where facts are unknown, the settings are
// right for any host. The gaps are not settled: see Render.
func Decide(p *plan.Plan, f hostfacts.Facts, o Options) (Settings, []plan.Gap, error) {
	if len(o.Grants) > 0 {
		return Settings{}, nil, fmt.Errorf("--grant %s: a setting of a host does not see who holds a rule; what any rule uses stays open", o.Grants[0])
	}
	d := decision{plan: p, facts: f, needs: needsOf(p)}
	d.algorithms()
	d.classes()
	d.restrict()
	d.namespaces()
	d.rules()
	slices.SortFunc(d.Modules, func(a, b ModprobeRule) int { return strings.Compare(a.Module, b.Module) })
	slices.SortFunc(d.Arguments, func(a, b KernelArgument) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	slices.SortFunc(d.Sysctls, func(a, b Sysctl) int { return strings.Compare(a.Key, b.Key) })
	return d.Settings, d.gaps, nil
}

// decision is a host's settings while they are decided.
type decision struct {
	plan  *plan.Plan
	facts hostfacts.Facts
	needs needs
	Settings
	gaps []plan.Gap
}
