package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func appArmorTarget() target {
	return target{
		name:  "apparmor",
		short: "Write an AppArmor profile or abstraction",
		long: `Apparmor writes Docker's container profile with a rule that denies AF_ALG, or
that rule alone as an abstraction for other profiles to include. It stops every
route where the socket is made, socketcall and io_uring too.

The profile declares a feature ABI. Without one apparmor_parser may drop the
rule in silence, and newer kernels may deny Unix sockets as well.

Of the classes that a policy denies beside AF_ALG it closes families and types
of families, and user namespaces with --abi 4.0 or kernel. The rest are wider
gaps: sockets, socket-options, user-namespaces.`,
		example: `  afalg-policy generate apparmor builtin:fips -o /etc/apparmor.d/` + gen.DefaultProfile + `
  afalg-policy generate apparmor builtin:fips --abstraction -o /etc/apparmor.d/abstractions/afalg-policy`,
		flags: appArmorFlags,
	}
}

func appArmorFlags(cmd *cobra.Command) generator {
	profile := cmd.Flags().String("profile", "", "`NAME` of the container profile; "+gen.DefaultProfile+" without it")
	abi := cmd.Flags().String("abi", "", "`NAME` of the feature ABI to declare: a file in /etc/apparmor.d/abi, "+gen.ABIKernel+", or "+gen.ABINone+"; "+gen.DefaultABI+" without it")
	noIncludes := cmd.Flags().Bool("no-includes", false, "include no tunables and abstractions, for hosts without those of AppArmor")
	abstraction := cmd.Flags().Bool("abstraction", false, "write the rule alone")
	for _, name := range []string{"profile", "abi", "no-includes"} {
		cmd.MarkFlagsMutuallyExclusive(name, "abstraction")
	}
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		return gen.AppArmor(p, gen.AppArmorOptions{
			Common: c, Abstraction: *abstraction, Profile: *profile, ABI: *abi, NoIncludes: *noIncludes,
		})
	}
}
