package profile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Profile is a seccomp profile in the OCI format, or in that of Docker and
// containers/common, which adds conditions on the host and the container.
type Profile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet,omitempty"`
	DefaultErrno     string                   `json:"defaultErrno,omitempty"` // containers/common
	Architectures    []specs.Arch             `json:"architectures,omitempty"`
	ArchMap          []ArchMap                `json:"archMap,omitempty"`
	Flags            []specs.LinuxSeccompFlag `json:"flags,omitempty"`
	ListenerPath     string                   `json:"listenerPath,omitempty"`
	ListenerMetadata string                   `json:"listenerMetadata,omitempty"`
	Syscalls         []Rule                   `json:"syscalls"`

	text *Text // that it was read from, for the places in errors
}

type ArchMap struct {
	Arch      specs.Arch   `json:"architecture"`
	SubArches []specs.Arch `json:"subArchitectures"`
}

type Rule struct {
	Comment  string                   `json:"comment,omitempty"`
	Name     string                   `json:"name,omitempty"` // old Docker profiles
	Names    []string                 `json:"names"`          // empty: the rule does nothing
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet,omitempty"`
	Errno    string                   `json:"errno,omitempty"` // containers/common
	Args     []specs.LinuxSeccompArg  `json:"args,omitempty"`
	Includes *Condition               `json:"includes,omitempty"`
	Excludes *Condition               `json:"excludes,omitempty"`
}

type Condition struct {
	Caps      []string `json:"caps,omitempty"`
	Arches    []string `json:"arches,omitempty"`
	MinKernel string   `json:"minKernel,omitempty"`
}

// Host is what a conditional profile depends on besides itself. It is an
// input: generating reads nothing of the machine that it runs on.
type Host struct {
	Arch   specs.Arch // the machine's own architecture, SCMP_ARCH_X86_64
	Caps   []string   // the container's bounding set
	Kernel string     // "6.1"; empty means newer than any condition
}

// setErrno fills the number in from the name where only the name is given.
func setErrno(number **uint, name string) error {
	if name == "" {
		return nil
	}
	n, ok := afalg.ErrnoByName(name)
	if !ok {
		return fmt.Errorf("unknown errno %q", name)
	}
	v := uint(n)
	if *number != nil && **number != v {
		return fmt.Errorf("%s is %d, and the number beside it is %d", name, v, **number)
	}
	*number = &v
	return nil
}

// Resolve returns the profile as the runtime gets it on that host.
func (p *Profile) Resolve(h Host) (*specs.LinuxSeccomp, error) {
	out := &specs.LinuxSeccomp{
		DefaultAction:    p.DefaultAction,
		DefaultErrnoRet:  p.DefaultErrnoRet,
		Architectures:    p.Arches(h.Arch),
		Flags:            p.Flags,
		ListenerPath:     p.ListenerPath,
		ListenerMetadata: p.ListenerMetadata,
	}
	for i, r := range p.Syscalls {
		holds, err := r.Applies(h)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if holds {
			out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{
				Names: r.Names, Action: r.Action, ErrnoRet: r.ErrnoRet, Args: r.Args,
			})
		}
	}
	return out, nil
}

// On returns the profile as it is on a host: without conditions, so that every
// runtime reads it alike.
func (p *Profile) On(h Host) (*Profile, error) {
	resolved, err := p.Resolve(h)
	if err != nil {
		return nil, err
	}
	return ofSpec(resolved), nil
}

// OfSpec is the profile that linux.seccomp of a config.json says, for those who
// have it as a value, as plugins of a runtime do.
func OfSpec(s *specs.LinuxSeccomp) (*Profile, error) {
	p := ofSpec(s)
	return p, p.normalize()
}

func ofSpec(s *specs.LinuxSeccomp) *Profile {
	p := &Profile{
		DefaultAction: s.DefaultAction, DefaultErrnoRet: s.DefaultErrnoRet,
		Architectures: s.Architectures, Flags: s.Flags,
		ListenerPath: s.ListenerPath, ListenerMetadata: s.ListenerMetadata,
	}
	for _, r := range s.Syscalls {
		p.Syscalls = append(p.Syscalls, Rule{Names: r.Names, Action: r.Action, ErrnoRet: r.ErrnoRet, Args: r.Args})
	}
	return p
}

func (p *Profile) Arches(native specs.Arch) []specs.Arch {
	if len(p.ArchMap) == 0 {
		return p.Architectures
	}
	for _, m := range p.ArchMap {
		if m.Arch == native {
			return append([]specs.Arch{m.Arch}, m.SubArches...)
		}
	}
	return nil
}

// maxArches is more than there are; a program is compiled for each machine.
const maxArches = 64

// checkArches refuses lists of architectures that are longer than any.
func (p *Profile) checkArches() error {
	lists := map[string]int{"architectures": len(p.Architectures), "archMap": len(p.ArchMap)}
	for _, m := range p.ArchMap {
		lists["subArchitectures"] = max(lists["subArchitectures"], len(m.SubArches))
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		if lists[name] > maxArches {
			return p.Errorf("", "%d entries in %s: there are not more than %d architectures", lists[name], name, maxArches)
		}
	}
	return nil
}

// Natives lists the machines that a profile is for: those that it names. Of
// machines with the same set of ABIs it lists the first.
func (p *Profile) Natives() []specs.Arch {
	var named []specs.Arch
	for _, m := range p.ArchMap {
		named = append(named, m.Arch)
	}
	named = append(named, p.Architectures...)
	for _, r := range p.Syscalls {
		if r.Includes != nil {
			for _, short := range r.Includes.Arches {
				if a, err := ArchByName(short); err == nil {
					named = append(named, a)
				}
			}
		}
	}
	var natives []specs.Arch
	seen := map[string]bool{}
	asked := map[specs.Arch]bool{}
	for _, a := range named {
		if asked[a] {
			continue
		}
		asked[a] = true
		abi, ok := afalg.ABIOf(string(a))
		set := append(slices.Clone(p.Arches(a)), a)
		slices.Sort(set)
		key := fmt.Sprint(slices.Compact(set))
		if ok && abi.Kind == afalg.Native && !seen[key] {
			seen[key] = true
			natives = append(natives, a)
		}
	}
	return natives
}

// Applies reports whether a rule's conditions hold. Of excluded capabilities any
// one excludes; included ones must all be there.
func (r Rule) Applies(h Host) (bool, error) {
	arch := ShortName(h.Arch)
	has := func(c string) bool { return slices.Contains(h.Caps, c) }
	if c := r.Excludes; c != nil {
		if slices.Contains(c.Arches, arch) || slices.ContainsFunc(c.Caps, has) {
			return false, nil
		}
		if c.MinKernel != "" {
			if ok, err := kernelAtLeast(h.Kernel, c.MinKernel); err != nil || ok {
				return false, err
			}
		}
	}
	if c := r.Includes; c != nil {
		if len(c.Arches) > 0 && !slices.Contains(c.Arches, arch) {
			return false, nil
		}
		for _, name := range c.Caps {
			if !has(name) {
				return false, nil
			}
		}
		if c.MinKernel != "" {
			return kernelAtLeast(h.Kernel, c.MinKernel)
		}
	}
	return true, nil
}

// ShortName is the name by which conditions call a machine: "amd64".
func ShortName(a specs.Arch) string {
	abi, _ := afalg.ABIOf(string(a))
	return abi.Short
}

// ArchByName finds an architecture by its OCI name or by the name that
// conditions and GOARCH use ("amd64").
func ArchByName(name string) (specs.Arch, error) {
	for _, abi := range afalg.ABIs() {
		if abi.Short != "" && name != "" && (name == abi.Arch || name == abi.Short || name == abi.GOARCH) {
			return specs.Arch(abi.Arch), nil
		}
	}
	return "", fmt.Errorf("unknown architecture %q: use a name like amd64, arm64 or SCMP_ARCH_X86_64", name)
}

func kernelAtLeast(have, want string) (bool, error) {
	if have == "" {
		return true, nil
	}
	h, err := parseKernel(have)
	if err != nil {
		return false, err
	}
	w, err := parseKernel(want)
	if err != nil {
		return false, err
	}
	return slices.Compare(h[:], w[:]) >= 0, nil
}

// CheckKernel reports whether a kernel version is one that Host takes.
func CheckKernel(version string) error {
	if version == "" {
		return nil
	}
	_, err := parseKernel(version)
	return err
}

func parseKernel(s string) (v [2]int, err error) {
	major, minor, ok := strings.Cut(s, ".")
	if ok {
		if v[0], err = strconv.Atoi(major); err == nil {
			v[1], err = strconv.Atoi(minor)
		}
	}
	if !ok || err != nil {
		return v, fmt.Errorf("kernel version %q: write it as MAJOR.MINOR, like 6.1", s)
	}
	return v, nil
}

// Conditional reports whether the rule depends on capabilities.
func (r Rule) Conditional() bool {
	return r.Includes != nil && len(r.Includes.Caps) > 0 || r.Excludes != nil && len(r.Excludes.Caps) > 0
}

// Caps lists the capabilities that conditions name.
func (p *Profile) Caps() []string {
	var caps []string
	for _, r := range p.Syscalls {
		for _, c := range []*Condition{r.Includes, r.Excludes} {
			if c != nil {
				caps = append(caps, c.Caps...)
			}
		}
	}
	slices.Sort(caps)
	return slices.Compact(caps)
}
