package gen

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// OCI hardens linux.seccomp of a config.json and changes nothing else in it, so
// that the output carries no record of what made it. A config without a
// profile gets the Docker default for its capabilities. The machine is that of
// o.Host.Arch; where it is empty, the one that the profile names, or x86-64.
func OCI(p *plan.Plan, config *profile.Config, o SeccompOptions) ([]File, []plan.Gap, error) {
	if err := config.ForLinux(); err != nil {
		return nil, nil, err
	}
	base, err := config.StrictProfile()
	if err != nil {
		return nil, nil, err
	}
	none := base == nil
	if none {
		base = profile.Docker()
	} else if o.Host.Arch == "" {
		o.Host.Arch = machineOf(base)
	}
	if o.Host.Arch == "" {
		o.Host.Arch = specs.ArchX86_64
	}
	o.Host.Caps = config.Bounding
	hardened, gaps, err := harden.Harden(p, base, o.engine())
	if none {
		gaps = append(gaps, plan.Stricter.Gap("default-profile", nil,
			"the config had no seccomp profile and gets the default one, which denies more than AF_ALG"))
	}
	if err != nil {
		return nil, gaps, err
	}
	change, err := config.Set(hardened)
	if err != nil {
		return nil, gaps, err
	}
	return []File{{Path: "config.json", Data: jsontext.Apply(config.Document().Src, change)}}, gaps, nil
}

// machineOf returns the first machine that a profile names; "" if there is none.
func machineOf(base *profile.Profile) specs.Arch {
	for _, arch := range base.Architectures {
		if abi, ok := afalg.ABIOf(string(arch)); ok && abi.Kind == afalg.Native {
			return arch
		}
	}
	return ""
}
