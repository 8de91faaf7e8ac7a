package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func bottlerocketNotes(c carried) []string {
	notes := []string{
		"Give it to a node as user data, or to one that runs with: apiclient apply <FILE. Bottlerocket makes lines of modprobe.d of the modules (install NAME /bin/true), and sets the sysctls.",
		"It takes effect at once for modules that are not loaded yet and for sysctls.",
		"Undo it by leaving these lines out of the user data of new nodes. On a node that runs: apiclient set kernel.modules.NAME.allowed=true for each module; sysctls and kernel parameters by their earlier values; reboot.",
		"Bottlerocket brings an SELinux policy of its own, and loads no module into it.",
	}
	if len(c.arguments) > 0 {
		notes[1] += " The kernel parameters take effect at the next boot; reboot-to-reconcile makes a new node reboot once for them."
	}
	return notes
}

// bottlerocketSets reports whether Bottlerocket is told a sysctl. It sets all of
// them early, when one of a module is not there yet, and logs an error for one that
// its kernel lacks. [src: bottlerocket, sources/api/corndog]
func bottlerocketSets(v Sysctl) bool { return v.Module == "" && !v.Optional }

// bottlerocketGaps are sysctls that are left out, and close what no other setting
// does.
func bottlerocketGaps(s Settings) []plan.Gap {
	var closed []string
	for _, m := range s.Modules {
		closed = append(closed, m.Closes...)
	}
	for _, v := range s.Sysctls {
		if bottlerocketSets(v) {
			closed = append(closed, v.Closes...)
		}
	}
	var gaps []plan.Gap
	for _, v := range s.Sysctls {
		open := slices.DeleteFunc(slices.Clone(v.Closes), func(what string) bool { return slices.Contains(closed, what) })
		if bottlerocketSets(v) || len(open) == 0 {
			continue
		}
		gaps = append(gaps, plan.Wider.Gap(v.Key, nil, fmt.Sprintf(
			"Bottlerocket sets sysctls before a module is loaded, and this one is not on every kernel: it is left out, and %s stay open; tell the kernel's release if that has no such sysctl",
			strings.Join(open, ", "))))
	}
	return gaps
}

// The types have what the output uses of Bottlerocket's settings.
type (
	bottlerocket struct {
		Settings bottlerocketSettings `toml:"settings"`
	}
	bottlerocketSettings struct {
		Kernel *bottlerocketKernel `toml:"kernel,omitempty"`
		Boot   *bottlerocketBoot   `toml:"boot,omitempty"`
	}
	bottlerocketKernel struct {
		Sysctl  map[string]string             `toml:"sysctl,omitempty"`
		Modules map[string]bottlerocketModule `toml:"modules,omitempty"`
	}
	bottlerocketModule struct {
		Allowed bool `toml:"allowed"`
	}
	bottlerocketBoot struct {
		Reconcile  bool                `toml:"reboot-to-reconcile"`
		Parameters map[string][]string `toml:"kernel-parameters"`
	}
)

func writeBottlerocket(c carried) ([]gen.File, error) {
	kernel := bottlerocketKernel{Sysctl: map[string]string{}, Modules: map[string]bottlerocketModule{}}
	for _, m := range c.Modules {
		kernel.Modules[m.Module] = bottlerocketModule{}
	}
	for _, v := range c.Sysctls {
		if bottlerocketSets(v) {
			kernel.Sysctl[v.Key] = v.Value
		}
	}
	var object bottlerocket
	if len(kernel.Modules)+len(kernel.Sysctl) > 0 {
		object.Settings.Kernel = &kernel
	}
	if len(c.arguments) > 0 {
		object.Settings.Boot = &bottlerocketBoot{Reconcile: true, Parameters: map[string][]string{}}
	}
	for _, a := range c.arguments {
		name, value, _ := strings.Cut(a, "=")
		object.Settings.Boot.Parameters[name] = []string{value}
	}
	text, err := toml.Marshal(object)
	if err != nil {
		return nil, err
	}
	return []gen.File{{Path: "afalg-policy.toml", Data: append([]byte(c.head+"\n"), text...)}}, nil
}
