package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// place is what a socket inherits from the cgroups of its maker: in the unified
// hierarchy the cgroup itself, by which BPF programs and nftables filter and
// count; in the others, the classes of net_cls and net_prio.
type place struct {
	Unified string // "" where there is no such hierarchy
	Classes string // paths, "" where there are none
}

func placeAt(dir string) (place, error) {
	text, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return place{}, err
	}
	return parsePlace(string(text)), nil
}

// parsePlace reads lines of ID:CONTROLLERS:PATH.
func parsePlace(text string) place {
	var p place
	for line := range strings.Lines(text) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		list := strings.Split(controllers, ",")
		switch {
		case id == "0" && controllers == "":
			p.Unified = path
		case slices.Contains(list, "net_cls") || slices.Contains(list, "net_prio"):
			p.Classes += path + "\n"
		}
	}
	return p
}

// labelAt reads the label that SELinux or Smack gives to the sockets of a
// process, and checks later; "" where there is none. AppArmor checks the user
// of a socket instead, so its label does not matter.
func labelAt(dir string) (string, error) {
	current, err := readLabel(dir + "/attr/current")
	if err != nil || current == "" {
		return "", err
	}
	switch own, err := readLabel(dir + "/attr/apparmor/current"); {
	case err != nil:
		return "", err
	case own == current:
		return "", nil
	}
	return current, nil
}

// readLabel returns "" where no module answers.
func readLabel(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	return strings.TrimRight(string(text), "\x00\n"), err
}

const own = "/proc/self"

// elsewhere reports whether the caller is in another cgroup than this process.
// It refuses what the maker cannot take on.
func (o order) elsewhere() (bool, error) {
	mine, err := placeAt(own)
	if err != nil {
		return false, fmt.Errorf("find the cgroup of the helper: %v", err)
	}
	label, err := labelAt(own)
	switch {
	case err != nil:
		return false, fmt.Errorf("find the label of the helper: %v", err)
	case label != o.Label:
		return false, fmt.Errorf("the caller has the label %q, and the socket would get %q, by which the kernel decides about it: use --socketcall deny", o.Label, label)
	case mine.Classes != o.Place.Classes:
		return false, fmt.Errorf("the caller is in another cgroup of net_cls or net_prio (%q), whose class its socket would not have: use --socketcall deny", strings.TrimSpace(o.Place.Classes))
	}
	return mine.Unified != o.Place.Unified, nil
}

// madeIn bounds the wait, in milliseconds, for a socket from a process in the
// caller's cgroup, which may be frozen, or short of processor time.
const madeIn = 2000

// createIn makes a socket in the caller's cgroup, by a short-lived process
// there. That process counts in the cgroup: where no more are allowed, there is
// no socket.
func (o order) createIn() ([]int, error) {
	child, err := o.child()
	if err != nil {
		return nil, err
	}
	dir, err := openCgroup(o.Place.Unified)
	if err != nil {
		return nil, o.notEntered(err)
	}
	defer unix.Close(dir)
	started, err := child.StartIn(dir)
	if err != nil {
		return nil, o.notEntered(err)
	}
	defer started.End()
	fds, err := started.Receive(madeIn)
	if err != nil {
		return nil, err
	}
	// The path may lead elsewhere: to the cgroup of another mount, or to a new
	// one of that name.
	at, err := placeAt(fmt.Sprintf("/proc/%d", started.PID))
	if err == nil && at.Unified != o.Place.Unified {
		err = fmt.Errorf("the path leads to %q", at.Unified)
	}
	if err != nil {
		notify.CloseAll(fds)
		return nil, o.notEntered(err)
	}
	return fds, nil
}

// notEntered is no errno of the call.
func (o order) notEntered(err error) error {
	return fmt.Errorf("enter the caller's cgroup %q: %v", o.Place.Unified, err)
}

func (o order) child() (*notify.Child, error) {
	privileged, err := o.privileged()
	if err != nil {
		return nil, err
	}
	_, caps, err := o.capabilities()
	if err != nil {
		return nil, fmt.Errorf("take on the caller's capabilities: %v", err)
	}
	c := &notify.Child{
		Family: int(o.Family), Type: int(o.Kind) | unix.SOCK_CLOEXEC, Protocol: int(o.Protocol), Pair: o.Pair,
		Identity: privileged, UID: o.UID, GID: o.GID, Caps: caps,
	}
	for _, g := range o.Groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c, nil
}

// openCgroup opens the directory of a cgroup of the unified hierarchy, which is
// mounted beside others or alone.
func openCgroup(path string) (int, error) {
	if !strings.HasPrefix(path, "/") || slices.Contains(strings.Split(path, "/"), "..") {
		return -1, errors.New("it is outside the visible hierarchy")
	}
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(mount, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return unix.Open(filepath.Join(mount, path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	return -1, errors.New("the unified hierarchy is not mounted at /sys/fs/cgroup")
}
