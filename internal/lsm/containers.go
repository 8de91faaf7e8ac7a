package lsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// cgroupRoot is the unified hierarchy.
const cgroupRoot = "/sys/fs/cgroup"

// Register gives the container of a process its rules, before it starts. The
// plan must be the one that is loaded. A container that holds no rule need only
// be registered if it has no PID and no cgroup namespace of its own: it looks like
// the host.
func Register(p *plan.Plan, id string, pid int, rules []string) (Grantee, error) {
	g := Grantee{ID: id, Rules: rules}
	unlock, err := lock()
	if err != nil {
		return g, err
	}
	defer unlock()
	s, err := ReadState()
	if err != nil {
		return g, err
	}
	if s.Digest != p.Digest {
		return g, fmt.Errorf("the kernel has another policy loaded than %s: load it with `afalg-policy lsm load`", p.Name)
	}
	if g.Path, g.Cgroup, err = ownCgroup(pid); err != nil {
		return g, hosterr.Errorf("register the container %s: %w", id, err)
	}
	m, err := openPinned()
	if err != nil {
		return g, err
	}
	defer m.close()
	s.Containers = append(living(slices.DeleteFunc(s.Containers, func(o Grantee) bool { return o.Cgroup == g.Cgroup })), g)
	if err := grantTo(m["containers"], p, s.Generation, g); err != nil {
		return g, err
	}
	return g, s.write()
}

// ownCgroup finds the cgroup of a container's process. One that the runtime is
// in too is not the container's: others would be given its rules, and lose
// theirs.
func ownCgroup(pid int) (path string, id uint64, err error) {
	path, id, err = cgroupOf(pid)
	if err != nil {
		return path, id, err
	}
	mine, _, err := cgroupOf(os.Getpid())
	if err == nil && strings.HasPrefix(mine+"/", path+"/") {
		return path, id, fmt.Errorf("it has no cgroup of its own: its runtime is in %s too", path)
	}
	return path, id, nil
}

// living leaves out the containers whose cgroup is gone. The kernel gives no
// number twice.
func living(all []Grantee) []Grantee {
	return slices.DeleteFunc(slices.Clone(all), func(g Grantee) bool { return !g.living() })
}

// cgroupOf finds the cgroup of a process in the unified hierarchy.
func cgroupOf(pid int) (path string, id uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		path = strings.TrimSuffix(rest, "\n")
		switch levels := strings.Count(path, "/"); {
		case path == "/" || strings.HasPrefix(path, "/.."):
			return "", 0, errors.New("it has no cgroup of its own")
		case levels > guard.MaxLevels:
			return "", 0, fmt.Errorf("its cgroup %s lies deeper than %d levels", path, guard.MaxLevels)
		}
		id, err = cgroupID(path)
		return path, id, err
	}
	return "", 0, errors.New("it is in no unified cgroup hierarchy")
}

// cgroupID is the number of the cgroup's directory.
func cgroupID(path string) (uint64, error) {
	var st unix.Stat_t
	dir := filepath.Join(cgroupRoot, path)
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return st.Ino, nil
}
