package probe

import (
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// Seccomp is what the kernel shows of this process's filters.
type Seccomp struct {
	Mode    string `json:"mode"`    // "none", "strict", "filter" or "unknown"
	Filters int    `json:"filters"` // how many; -1 if not shown (before Linux 5.9, or no /proc)
}

var seccompModes = []string{"none", "strict", "filter"}

// seccompOf reads the status in /proc/self, and asks prctl where there is none.
func seccompOf(self string) Seccomp {
	s := Seccomp{"unknown", -1}
	status, err := proc.ReadStatus(self)
	mode := status.Seccomp
	if err == nil {
		s.Filters = status.Filters
	}
	if err != nil || mode < 0 {
		if mode, err = unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
			return s
		}
	}
	if mode < len(seccompModes) {
		s.Mode = seccompModes[mode]
	}
	return s
}
