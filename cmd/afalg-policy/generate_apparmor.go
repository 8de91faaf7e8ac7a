package main

import (
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/spf13/cobra"
)

func appArmorTarget() target {
	return target{
		name:  "apparmor",
		short: "Write an AppArmor profile or abstraction",
		long: `Apparmor writes Docker's container profile with a rule that denies AF_ALG, or
that rule alone as an abstraction for other profiles to include. It stops every
route where the socket is made, socketcall and io_uring too.`,
		example: `  afalg-policy generate apparmor builtin:fips -o /etc/apparmor.d/` + gen.DefaultProfile + `
  afalg-policy generate apparmor builtin:fips --abstraction -o /etc/apparmor.d/abstractions/afalg-policy`,
		flags: appArmorFlags,
	}
}

func appArmorFlags(cmd *cobra.Command) generator {
	profile := cmd.Flags().String("profile", "", "`NAME` of the container profile; "+gen.DefaultProfile+" without it")
	abstraction := cmd.Flags().Bool("abstraction", false, "write the rule alone")
	cmd.MarkFlagsMutuallyExclusive("profile", "abstraction")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []gen.Gap, error) {
		return gen.AppArmor(p, gen.AppArmorOptions{Common: c, Abstraction: *abstraction, Profile: *profile})
	}
}
