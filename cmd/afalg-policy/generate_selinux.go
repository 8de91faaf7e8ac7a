package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func selinuxTarget() target {
	return target{
		name:  "selinux",
		short: "Write an SELinux module in CIL",
		long: `Selinux writes a module in CIL that takes AF_ALG, and what else the policy
closes, from every domain of a host: from unconfined ones and those of
containers too. Deny rules remove what any other module allows, and neverallow
rules check that nothing is left.

SELinux knows neither executables nor algorithms. --domain says which domain
holds a rule. All that runs in it has AF_ALG whole, which --accept RULE takes
on.

What the host has is said, and never looked up: --userspace, --kernel, --lacks.
Before userspace 3.6 there are no deny rules; the module then has constraints,
which deny the same.`,
		example: `  afalg-policy generate selinux builtin:baseline -o afalg-policy.cil && semodule -i afalg-policy.cil
  afalg-policy generate selinux builtin:iwd --domain iwd=iwd_t --accept iwd -o afalg-policy.cil
  afalg-policy generate selinux builtin:baseline --userspace 2.9 -o afalg-policy.cil`,
		flags: selinuxFlags,
	}
}

func selinuxFlags(cmd *cobra.Command) generator {
	f := cmd.Flags()
	domains := f.StringArray("domain", nil, "`RULE=TYPE` of the SELinux domain that holds a rule; may be repeated")
	userspace := f.String("userspace", "", "`VERSION` of the host's SELinux userspace (semodule, libsepol); "+gen.DefaultUserspace+" without it")
	kernel := f.String("kernel", "", "`RELEASE` of the host's kernel, as of uname -r")
	lacks := f.StringArray("lacks", nil, "`CLASS` that the host's policy does not have (ls /sys/fs/selinux/class); may be repeated")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		held := map[string][]string{}
		for _, domain := range unique(*domains) {
			rule, name, ok := strings.Cut(domain, "=")
			if !ok {
				return nil, nil, usagef("--domain %s: RULE=TYPE is meant", domain)
			}
			if err := checkRule(p, "--domain", rule); err != nil {
				return nil, nil, err
			}
			held[rule] = append(held[rule], name)
		}
		return gen.SELinux(p, gen.SELinuxOptions{
			Common: c, Domains: held, Userspace: *userspace, Kernel: *kernel, Lacks: unique(*lacks),
		})
	}
}
