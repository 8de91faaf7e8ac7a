package main

import (
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/spf13/cobra"
)

func systemdTarget() target {
	return target{
		name:  "systemd",
		short: "Write drop-ins for systemd units",
		long: `Systemd writes drop-ins that close AF_ALG for every service, or for the named
units, and the exception for each unit that holds a rule. The directory is laid
out as /etc/systemd/system.

A service may already list the address families that it needs. Tell with --show
which do: each then keeps its list, without AF_ALG. Without it the longer list
of this program replaces theirs, a gap called own-lists. The file is
the output of

  systemctl show --property=Id,RestrictAddressFamilies UNIT…

for every service that the machine has, loaded or not. Show a template as its
instance afalg-policy, as in getty@afalg-policy.service.`,
		example: `  systemctl show --property=Id,RestrictAddressFamilies '*.service' > units.txt
  afalg-policy generate systemd builtin:desktop --show units.txt -o /etc/systemd/system
  afalg-policy generate systemd policy.yaml --unit nginx.service --show units.txt -o out`,
		directory: true,
		flags:     systemdFlags,
	}
}

// maxShow bounds the output of systemctl show in bytes, about 100 to a unit.
const maxShow = 16 << 20

func systemdFlags(cmd *cobra.Command) generator {
	f := cmd.Flags()
	units := f.StringArray("unit", nil, "`NAME` of a unit to restrict; may be repeated; every service without it")
	except := f.StringArray("except", nil, "`NAME` of a service to leave as it is, a wider gap of that name; may be repeated")
	show := f.String("show", "", "`FILE` that tells what the units restrict themselves")
	arch := addArch(cmd, "amd64")
	cmd.MarkFlagsMutuallyExclusive("unit", "except")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []gen.Gap, error) {
		o := gen.SystemdOptions{Common: c, Units: unique(*units), Except: unique(*except)}
		var err error
		if o.Arch, err = arch(); err != nil {
			return nil, nil, err
		}
		if *show != "" {
			shown, err := readInput(*show, maxShow)
			if err != nil {
				return nil, nil, err
			}
			o.Show = append([]byte{}, shown...) // nil would mean no facts
		}
		return gen.Systemd(p, o)
	}
}
