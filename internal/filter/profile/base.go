package profile

import (
	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Docker is the default profile of Docker, as pinned in go.mod.
func Docker() *Profile {
	moby := mobyseccomp.DefaultProfile()
	p := ofSpec(&moby.LinuxSeccomp)
	p.ArchMap = mobyArchMap(moby)
	for _, r := range moby.Syscalls {
		p.Syscalls = append(p.Syscalls, Rule{
			Comment: r.Comment, Names: r.Names, Action: r.Action, ErrnoRet: r.ErrnoRet, Args: r.Args,
			Includes: mobyCondition(r.Includes), Excludes: mobyCondition(r.Excludes),
		})
	}
	return p
}

func mobyCondition(f *mobyseccomp.Filter) *Condition {
	if f == nil {
		return nil
	}
	c := &Condition{Caps: f.Caps, Arches: f.Arches}
	if f.MinKernel != nil {
		c.MinKernel = f.MinKernel.String()
	}
	return c
}

func mobyArchMap(moby *mobyseccomp.Seccomp) []ArchMap {
	var maps []ArchMap
	for _, m := range moby.ArchMap {
		maps = append(maps, ArchMap(m))
	}
	return maps
}

// AllowAll allows everything on every ABI of the machine.
func AllowAll(native specs.Arch) *Profile {
	p := &Profile{ArchMap: mobyArchMap(mobyseccomp.DefaultProfile())}
	arches := p.Arches(native)
	if len(arches) == 0 {
		arches = []specs.Arch{native}
	}
	return &Profile{DefaultAction: specs.ActAllow, Architectures: arches, Syscalls: []Rule{}}
}

// DefaultCaps is the bounding set that Docker gives a container
// (moby/daemon/pkg/oci/caps, DefaultCapabilities).
func DefaultCaps() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
		"CAP_SETUID", "CAP_SYS_CHROOT",
	}
}
