package gen

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
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
	// Base is the profile to harden, in either format. Nil is the Docker
	// default for the oci target.
	Base       []byte
	Format     Format
	Socketcall Socketcall
	// Broker is the socket of the agent, to which a runtime hands the listener.
	// With one, AF_ALG is decided at run time, for the rules in Grants alone.
	Broker string
	Host   profile.Host
	// Memo keeps what Harden and Prove found; nil: nothing is kept.
	Memo Memo
}

// Seccomp hardens a profile. What it returns has been compiled as each runtime
// compiles it, and the programs asked every route.
func Seccomp(p *plan.Plan, o SeccompOptions) ([]File, []Gap, error) {
	base, err := profile.Parse(o.Base)
	if err != nil {
		return nil, nil, err
	}
	hardened, gaps, err := hardenFor(p, base, o)
	if err != nil {
		return nil, gaps, err
	}
	var out any = withRecord(hardened, o.provenance(p)+"; proved with libseccomp "+seccomp.Version(), gaps)
	if o.Format == FormatOCI {
		if out, err = hardened.Resolve(o.Host); err != nil {
			return nil, nil, err
		}
	}
	data, err := profile.EncodeJSON(out)
	if err != nil {
		return nil, nil, err
	}
	return []File{{Path: "seccomp.json", Data: data}}, gaps, nil
}

// Harden hardens a profile that is resolved already; nil stands for o.Base, or
// the Docker default on o.Host.
func Harden(p *plan.Plan, base *specs.LinuxSeccomp, o SeccompOptions) (*specs.LinuxSeccomp, []Gap, error) {
	src, err := baseText(base, o)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the base profile: %w", err)
	}
	key := memoKey("hardened", p, src, o)
	if r, ok := o.recall(key); ok {
		return r.Profile, r.Gaps, nil
	}
	parsed, err := profile.Parse(src)
	if err != nil {
		return nil, nil, err
	}
	o.Format = FormatOCI
	hardened, gaps, err := hardenFor(p, parsed, o)
	if err != nil {
		return nil, gaps, err
	}
	out, err := hardened.Resolve(o.Host)
	if err == nil {
		o.keep(key, remembered{out, gaps})
	}
	return out, gaps, err
}

func baseText(base *specs.LinuxSeccomp, o SeccompOptions) ([]byte, error) {
	switch {
	case base != nil:
		return json.Marshal(base)
	case o.Base != nil:
		return o.Base, nil
	default:
		return profile.Docker()
	}
}

func hardenFor(p *plan.Plan, base *profile.Profile, o SeccompOptions) (*profile.Profile, []Gap, error) {
	c, err := closingOf(p, base, o)
	if err != nil {
		return nil, nil, err
	}
	hardened, ch, err := harden(base, c)
	if err != nil {
		return nil, nil, fmt.Errorf("hardening the base profile: %w", err)
	}
	gaps, err := seccompGaps(p, base, c, ch, o)
	if err != nil {
		return nil, nil, err
	}
	if err := o.settle(gaps); err != nil {
		return nil, gaps, err
	}
	if c.broker {
		hardened.ListenerPath = o.Broker
		hardened.ListenerMetadata = plan.Metadata{Policy: p.Digest, Grants: o.Grants}.String()
	}
	return hardened, gaps, proveAll(base, hardened, c, o)
}

// closingOf checks the options that are about the broker.
func closingOf(p *plan.Plan, base *profile.Profile, o SeccompOptions) (closing, error) {
	c := closing{
		families:   closedFamilies(p),
		errno:      uint(p.SocketErrno.Number),
		socketcall: o.Socketcall,
		broker:     o.Broker != "",
	}
	c.granted = len(o.Grants) > 0 && !c.broker
	if err := checkSocketcall(o.Socketcall, c.broker); err != nil {
		return c, err
	}
	if !c.broker {
		return c, nil
	}
	has, _ := socketcallABIs(base, o)
	if o.Socketcall == SocketcallKeep && has && isPermissive(base.DefaultAction) {
		return c, fmt.Errorf("socketcall cannot be kept in a profile that allows by default and has a broker: libseccomp would hand parts of it to the broker; use --socketcall deny or broker")
	}
	return c, CheckBroker(o.Broker)
}

// closedFamilies lists AF_ALG and the further families of a plan, sorted.
func closedFamilies(p *plan.Plan) []uint32 {
	families := []uint32{afalg.Family}
	for _, f := range p.Families {
		families = append(families, f.Number)
	}
	slices.Sort(families)
	return slices.Compact(families)
}

// withRecord puts what made the profile into the comment of its first rule,
// the only place in the format for it.
func withRecord(p *profile.Profile, made string, gaps []Gap) *profile.Profile {
	out := *p
	out.Syscalls = slices.Clone(p.Syscalls)
	if len(out.Syscalls) == 0 {
		return &out
	}
	first := &out.Syscalls[0]
	record := []string{made}
	for _, g := range gaps {
		record = append(record, g.String())
	}
	if first.Comment != "" {
		record = append(record, first.Comment)
	}
	first.Comment = strings.Join(record, "; ")
	return &out
}

// proveAll proves a profile for every machine that it is for: the one of the
// host where it is resolved, each that it names otherwise.
func proveAll(base, p *profile.Profile, c closing, o SeccompOptions) error {
	hosts := []profile.Host{o.Host}
	if o.Format == FormatDocker {
		hosts = hostsOf(p, o.Host, c.brokerNames()...)
	}
	return inParallel(len(hosts), func(i int) error {
		if err := prove(p, hosts[i], c); err != nil || !c.broker {
			return err
		}
		return c.proveBroker(base, p, hosts[i])
	})
}

// hostsOf lists the hosts for which a conditional profile is proved: each
// machine with every capability that a condition names, and with none if a
// condition is about a call that reaches AF_ALG, or is one of further.
func hostsOf(p *profile.Profile, h profile.Host, further ...string) []profile.Host {
	natives := p.Natives()
	if len(natives) == 0 {
		natives = []specs.Arch{h.Arch}
	}
	touched, _ := split(p.Syscalls, further...)
	conditional := false
	for _, rules := range touched {
		conditional = conditional || slices.ContainsFunc(rules, func(r profile.Rule) bool { return r.Conditional() })
	}
	var hosts []profile.Host
	for _, a := range natives {
		hosts = append(hosts, profile.Host{Arch: a, Caps: p.Caps(), Kernel: h.Kernel})
		if conditional {
			hosts = append(hosts, profile.Host{Arch: a, Kernel: h.Kernel})
		}
	}
	return hosts
}
