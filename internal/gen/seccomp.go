package gen

import (
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Format is a seccomp profile's file format.
type Format string

const (
	// FormatOCI is resolved for one host: what runtimes and containerd's
	// Localhost profiles take.
	FormatOCI Format = "oci"
	// FormatDocker keeps the conditions: what Docker, Podman and CRI-O take.
	FormatDocker Format = "docker"
)

// SeccompOptions are the inputs of the seccomp and oci targets.
type SeccompOptions struct {
	Common
	// Base is the profile that the seccomp target hardens.
	Base       *profile.Profile
	Format     Format
	Socketcall harden.Socketcall
	// Broker is the socket of the agent, to which a runtime hands the listener.
	// With one, AF_ALG is decided at run time, for the rules in Grants alone.
	Broker string
	Host   profile.Host
}

func (o SeccompOptions) engine() harden.Options {
	return harden.Options{
		Tool: o.Tool, Grants: o.Grants, Accept: o.Accept, Standing: o.Standing,
		Conditional: o.Format == FormatDocker, Socketcall: o.Socketcall, Broker: o.Broker, Host: o.Host,
	}
}

// Seccomp hardens a profile. The result has been compiled as each runtime
// compiles it, and the programs asked every route. A base that filters nothing
// is hardened as one that allows everything.
func Seccomp(p *plan.Plan, o SeccompOptions) ([]File, []plan.Gap, error) {
	base := o.Base
	nothing := base.FiltersNothing()
	if nothing {
		base = profile.AllowAll(o.Host.Arch)
	}
	hardened, gaps, err := harden.Harden(p, base, o.engine())
	if nothing {
		gaps = append(gaps, plan.Stricter.Gap("unfiltered-base", nil,
			"the base filters nothing, and runtimes load no filter for it; the result is a filter that allows everything but what the policy closes"))
	}
	if err != nil {
		return nil, gaps, err
	}
	record := []string{o.provenance(p), "proved with libseccomp " + seccomp.Version()}
	for _, breaks := range p.Breaks() {
		record = append(record, breaks.String())
	}
	var out any = withRecord(hardened, record, gaps)
	if o.Format == FormatOCI {
		if out, err = hardened.Resolve(o.Host); err != nil {
			return nil, nil, err
		}
	}
	data, err := jsontext.Encode(out)
	if err != nil {
		return nil, nil, err
	}
	return []File{{Path: "seccomp.json", Data: data}}, gaps, nil
}

// withRecord puts what made the profile into the comment of its first rule,
// the only place in the format for it.
func withRecord(p *profile.Profile, record []string, gaps []plan.Gap) *profile.Profile {
	out := *p
	out.Syscalls = slices.Clone(p.Syscalls)
	if len(out.Syscalls) == 0 {
		return &out
	}
	first := &out.Syscalls[0]
	for _, g := range gaps {
		record = append(record, g.String())
	}
	if first.Comment != "" {
		record = append(record, first.Comment)
	}
	first.Comment = strings.Join(record, "; ")
	return &out
}
