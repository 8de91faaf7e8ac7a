package live

import (
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// containerScope matches the last word of a cgroup that an engine makes for a
// container: the id alone, or with the engine's name, as a scope of systemd.
var containerScope = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:([a-z][a-z-]*)-)?([0-9a-f]{64})(?:\.scope)?$`) })

// ContainerOf finds the container in the text of /proc/PID/cgroup: its id, and
// the engine if the cgroup names it. A process inside may make cgroups below
// its own, so the first counts.
func ContainerOf(cgroups string) (id, engine string) {
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		above := ""
		for component := range strings.SplitSeq(parts[2], "/") {
			if m := containerScope().FindStringSubmatch(component); m != nil {
				return m[2], engineOf(m[1], above)
			}
			above = component
		}
	}
	return "", ""
}

// engineOf names the engine by the prefix of the cgroup, or by the cgroup
// above.
func engineOf(prefix, above string) string {
	switch {
	case prefix == "cri-containerd":
		return "containerd"
	case prefix == "libpod" || strings.HasPrefix(above, "libpod"):
		return "podman"
	case prefix != "":
		return prefix
	case above == "docker" || above == "crio":
		return above
	}
	return ""
}

// Place is where a process runs.
type Place struct {
	Cgroups string // the text of /proc/PID/cgroup
	// SamePIDs means that the process is certainly in the PID namespace of the
	// reader.
	SamePIDs bool
	// Binary is the executable, if the host has the same file at that path.
	Binary string
	Gone   bool // it has ended meanwhile
}

// PlaceOf returns the place of a process. An unreadable part stays empty.
func PlaceOf(pid int) Place {
	dir := procPath(pid)
	text, _ := os.ReadFile(dir + "/cgroup") // empty: it is in none
	p := Place{Cgroups: string(text)}
	status, err := proc.ReadStatus(dir)
	p.Gone = isGone(err)
	p.SamePIDs = status.NamespaceIDs == 1 // one below has a number there too
	if path, err := os.Readlink(dir + "/exe"); err == nil && sameFile(dir+"/exe", path) {
		p.Binary = path
	}
	return p
}

// sameFile distinguishes the file of a process from a file with the same path
// in another mount namespace.
func sameFile(exe, path string) bool {
	a, err := os.Stat(exe)
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
