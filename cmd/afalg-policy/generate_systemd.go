package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

func systemdTarget() target {
	return target{
		name:  "systemd",
		short: "Write drop-ins for systemd units",
		long: `Systemd writes drop-ins that close AF_ALG for every service, or for the named
units, and the exception for each unit that holds a rule. The directory is laid
out as /etc/systemd/system. To put them there, with a record and a way back,
use "install systemd".

A service may already list the address families that it needs. Each keeps its
list, without AF_ALG. The manager of this host is asked which do; for another
host, or an image, tell by --show. The file is the output of

  systemctl show --property=Id,RestrictAddressFamilies,RestrictNamespaces UNIT…

for every service that the machine has, loaded or not. Show a template as its
instance afalg-policy, as in getty@afalg-policy.service. Without either nothing
is written, for a longer list would replace theirs.

A unit that a rule of the policy names, and that is there, loses AF_ALG unless
--grant gives it the rule: a breaking gap, which has to be accepted like a wider
one. The agent of this program is always left as it is.

Of the classes that a policy denies beside AF_ALG, whole families and user
namespaces are closed. A type or protocol of a family, and a socket option, are
wider gaps: sockets, socket-options.

An initramfs by dracut takes the drop-ins of single units that it lists, and not
those for every service. One that takes all of /etc/systemd (mkosi, a UKI,
dracut's install_items) closes AF_ALG too. The check of a fips=1 boot is in
dracut-pre-pivot.service, dracut-pre-mount.service or
dracut-pre-trigger.service; a rule that names these alone, as in builtin:fips,
is granted to them unasked.`,
		example: `  afalg-policy generate systemd builtin:desktop --grant iwd --accept iwd -o out
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
	show := f.String("show", "", "`FILE` with what the units restrict themselves; the manager of this host is asked without it")
	arch := addArch(cmd, "amd64")
	cmd.MarkFlagsMutuallyExclusive("unit", "except")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		o := gen.SystemdOptions{Common: c, Units: unique(*units), Except: unique(*except)}
		var err error
		if o.Arch, err = arch(); err != nil {
			return nil, nil, err
		}
		if o.Show, err = showUnits(cmd.Context(), *show); err != nil {
			return nil, nil, err
		}
		return gen.Systemd(p, o)
	}
}

// showUnits is what the units of a machine restrict themselves: by a file, or as
// the manager of this host says.
func showUnits(ctx context.Context, file string) ([]byte, error) {
	if file != "" {
		shown, err := readInput(file, maxShow)
		return append([]byte{}, shown...), err // nil would mean no facts
	}
	shown, err := unit.Ask(ctx)
	switch {
	case errors.Is(err, unit.ErrNoManager):
		return nil, hosterr.Errorf("%w that could say what units restrict themselves: tell by --show FILE", err)
	case err != nil:
		return nil, hosterr.Errorf("ask what units restrict themselves: %w", err)
	}
	return shown, nil
}
