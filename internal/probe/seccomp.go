package probe

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Seccomp is what the kernel tells of this process's filters.
type Seccomp struct {
	Mode    string `json:"mode"`    // "none", "strict", "filter" or "unknown"
	Filters int    `json:"filters"` // how many; -1 if not told (before Linux 5.9, or no /proc)
}

var seccompModes = map[string]string{"0": "none", "1": "strict", "2": "filter"}

// seccompOf reads /proc/self/status, and asks prctl where there is none.
func seccompOf(status string) Seccomp {
	s := Seccomp{"unknown", -1}
	data, _ := os.ReadFile(status)
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Seccomp":
			if mode, ok := seccompModes[value]; ok {
				s.Mode = mode
			}
		case "Seccomp_filters":
			if n, err := strconv.Atoi(value); err == nil {
				s.Filters = n
			}
		}
	}
	if s.Mode == "unknown" {
		if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err == nil {
			s.Mode = seccompModes[strconv.Itoa(mode)]
		}
	}
	return s
}
