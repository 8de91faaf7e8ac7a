package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// systemdOnly are the flags of install that say how services are closed.
var systemdOnly = []string{"grant", "accept", "except", "show"}

// addServices adds these flags. The function that it returns prepares the
// options of an installation.
func addServices(cmd *cobra.Command) prepare {
	f := cmd.Flags()
	grants := f.StringArray("grant", nil, "systemd: `RULE` that its units hold; may be repeated")
	accept := f.StringArray("accept", nil, "systemd: `NAME` of a wider or breaking gap that you take on; may be repeated")
	except := f.StringArray("except", nil, "systemd: `NAME` of a service to leave as it is; may be repeated")
	show := f.String("show", "", "systemd: `FILE` with what the units restrict themselves, for an image")
	return func(name string, o *install.Options, p *plan.Plan) error {
		if name != "systemd" {
			if i := slices.IndexFunc(systemdOnly, f.Changed); i >= 0 {
				return usagef("--%s is for systemd alone", systemdOnly[i])
			}
			return nil
		}
		if o.Root != defaultRoot && *show == "" {
			return hosterr.Errorf("--root %s: an image has no manager that could say what units restrict themselves: tell by --show FILE", o.Root)
		}
		o.Grants, o.Accept, o.Except = unique(*grants), unique(*accept), unique(*except)
		if err := checkGrants(p, o.Grants); err != nil {
			return err
		}
		var err error
		o.Show, err = showUnits(cmd.Context(), *show)
		return err
	}
}
