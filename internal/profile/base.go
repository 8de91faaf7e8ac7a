package profile

import (
	"encoding/json"
	"fmt"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Docker is the default profile of Docker, as pinned in go.mod.
func Docker() ([]byte, error) {
	b, err := json.Marshal(mobyseccomp.DefaultProfile())
	if err != nil {
		return nil, fmt.Errorf("reading the Docker default profile: %w", err)
	}
	return b, nil
}

// AllowAll allows everything on every ABI of the machine.
func AllowAll(native specs.Arch) ([]byte, error) {
	p := Profile{DefaultAction: specs.ActAllow, ArchMap: mobyArchMap(), Syscalls: []Rule{}}
	p.Architectures, p.ArchMap = p.Arches(native), nil
	if len(p.Architectures) == 0 {
		p.Architectures = []specs.Arch{native}
	}
	return EncodeJSON(p)
}

func mobyArchMap() []ArchMap {
	var maps []ArchMap
	for _, m := range mobyseccomp.DefaultProfile().ArchMap {
		maps = append(maps, ArchMap(m))
	}
	return maps
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
