package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// onlyFor has the flags of install that are not for every platform.
var onlyFor = map[string][]string{
	"grant": {"systemd"}, "except": {"systemd"}, "show": {"systemd"},
	"audit": {"lsm"}, "nri": {"containerd", "agent"}, "kubelet-root": {"kubernetes"},
}

// addOnly adds these flags. The function that it returns prepares the options of
// an installation.
func addOnly(cmd *cobra.Command) prepare {
	f := cmd.Flags()
	grants := f.StringArray("grant", nil, "systemd: `RULE` that its units hold; may be repeated")
	accept := f.StringArray("accept", nil, "`NAME` of a wider gap that you take on, or for systemd of a breaking one; may be repeated")
	except := f.StringArray("except", nil, "systemd: `NAME` of a service to leave as it is; may be repeated")
	show := f.String("show", "", "systemd: `FILE` with what the units restrict themselves, for an image")
	audit := f.Bool("audit", false, "lsm: allow everything, and record what the policy denies")
	nri := f.Bool("nri", false, "containerd, agent: have containerd ask the agent about each container, besides the wrapper")
	kubeletRoot := f.String("kubelet-root", "", "kubernetes: the kubelet's `DIR`, if its units do not say it")
	return func(name string, o *install.Options, p *plan.Plan) error {
		for _, flag := range slices.Sorted(maps.Keys(onlyFor)) {
			if f.Changed(flag) && !slices.Contains(onlyFor[flag], name) {
				return usagef("--%s is for %s alone", flag, strings.Join(onlyFor[flag], " and "))
			}
		}
		o.Accept, o.Audit, o.NRI, o.KubeletRoot = unique(*accept), *audit, *nri, *kubeletRoot
		if name != "systemd" {
			return nil
		}
		if o.Root != defaultRoot && *show == "" {
			return hosterr.Errorf("--root %s: an image has no manager that could say what units restrict themselves: tell by --show FILE", o.Root)
		}
		o.Grants, o.Except = unique(*grants), unique(*except)
		if err := checkGrants(p, o.Grants); err != nil {
			return err
		}
		var err error
		o.Show, err = showUnits(cmd.Context(), *show)
		return err
	}
}
