package main

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

func ociTarget() target {
	return target{
		name:  "oci",
		short: "Patch linux.seccomp of an OCI config.json",
		long: `Oci hardens the seccomp profile of a config.json and leaves every other byte as
it stands, so that the output holds no record of what made it. A config without
a profile gets Docker's default one, for the capabilities of its process.

With --broker, linux.seccomp names SOCKET, where "afalg-policy agent" listens,
and the rules that the container holds; "generate seccomp --help" tells more.`,
		example: `  afalg-policy generate oci builtin:fips --config bundle/config.json -o bundle/config.json
  afalg-policy generate oci builtin:fips --config bundle/config.json --broker /run/afalg-policy.sock \
      --grant fips-integrity-check -o bundle/config.json`,
		flags: ociFlags,
	}
}

func ociFlags(cmd *cobra.Command) generator {
	path := cmd.Flags().String("config", "", "`FILE` to patch")
	hardening := addHarden(cmd, "the one that the profile names, else amd64")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		if *path == "" {
			return nil, nil, usagef("--config FILE is missing")
		}
		o, err := hardening(c)
		if err != nil {
			return nil, nil, err
		}
		text, err := readInput(*path, jsontext.Max)
		if err != nil {
			return nil, nil, err
		}
		config, err := profile.ReadConfig(text)
		if err != nil {
			return nil, nil, &profile.NamedError{Name: source.ShownName(*path), Err: err}
		}
		files, gaps, err := gen.OCI(p, config, o)
		var open *plan.UnacceptedError
		if err != nil && !errors.As(err, &open) {
			err = &profile.NamedError{Name: source.ShownName(*path), Err: err}
		}
		return files, gaps, err
	}
}

// addArch adds --arch. The function that it returns gives "" without the flag.
func addArch(cmd *cobra.Command, otherwise string) func() (specs.Arch, error) {
	name := cmd.Flags().String("arch", "", "`MACHINE` that the output is for, like arm64; without it "+otherwise)
	return func() (specs.Arch, error) {
		if *name == "" {
			return "", nil
		}
		arch, err := profile.ArchByName(*name)
		if err != nil {
			return "", usagef("--arch: %w", err)
		}
		return arch, nil
	}
}
