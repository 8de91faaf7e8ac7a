package lsm

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
)

// Use is what somebody asked for, and how often.
type Use struct {
	Call      string          `json:"call"` // "socket", "bind", "accept"
	Algorithm afalg.Algorithm `json:"algorithm,omitzero"`
	// Binary is the path of the executable, looked up again: that file is the one
	// that asked. It is empty if no such file is found, as after an upgrade.
	Binary string `json:"binary,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of that file now; empty if it cannot be read
	// Shown is what the path was said to be; it decides nothing.
	Shown     string    `json:"shown"`
	UID       uint32    `json:"uid"`
	Unit      string    `json:"unit,omitempty"`
	Contained bool      `json:"contained,omitempty"`
	Allowed   bool      `json:"allowed"` // by the policy; in audit the call was carried out all the same
	Count     uint64    `json:"count"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// Uses returns what the kernel recorded since the programs were loaded. It has
// no order.
func Uses() ([]Use, error) {
	if err := initialNamespaces(); err != nil {
		return nil, err
	}
	m, err := openPinned()
	if err != nil {
		return nil, err
	}
	defer m.close()
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	names := namesOf(m)
	var all []Use
	var u guard.Use
	var t guard.Times
	it := m["uses"].Iterate()
	for it.Next(&u, &t) {
		one := names.use(u)
		one.Count, one.First, one.Last = t.Count, boot.Add(time.Duration(t.First)), boot.Add(time.Duration(t.Last))
		all = append(all, one)
	}
	return all, it.Err()
}

// openPinned opens the maps that are in force.
func openPinned() (pinned, error) {
	s, err := guard.LoadLSM()
	if err != nil {
		return nil, err
	}
	m := openMaps(s)
	if m == nil {
		return nil, ErrNotLoaded
	}
	return m, nil
}

func bootTime() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(-time.Duration(since.Nano())).UTC(), nil
}

// names resolves the numbers of uses.
type names struct {
	m       pinned
	paths   map[guard.Binary]string
	digests map[guard.Binary]string
}

func namesOf(m pinned) names {
	n := names{m, map[guard.Binary]string{}, map[guard.Binary]string{}}
	shown := map[guard.Binary]string{}
	var b guard.Binary
	var t guard.Trail
	for all := m["trails"].Iterate(); all.Next(&b, &t); {
		shown[b] = path(t)
	}
	n.verify(shown)
	n.digest()
	return n
}

// digest reads the files, if they are still those that asked.
func (n names) digest() {
	wanted := map[string]bool{}
	for _, path := range n.paths {
		wanted[path] = true
	}
	files := map[string]table.File{}
	if lookUp(wanted, files) != nil {
		return
	}
	for b, path := range n.paths {
		if files[path].Binary == b {
			n.digests[b] = files[path].SHA256
		}
	}
}

// verify looks the paths up: in each mount, since a trail ends at the root of
// one.
func (n names) verify(shown map[guard.Binary]string) {
	wanted, all := map[string]bool{}, mounts()
	for _, p := range shown {
		for _, mount := range all {
			wanted[filepath.Join(mount, p)] = false
		}
	}
	files := map[string]table.File{}
	if lookUp(wanted, files) != nil {
		return
	}
	for p, f := range files {
		if _, ok := shown[f.Binary]; ok && (n.paths[f.Binary] == "" || len(p) < len(n.paths[f.Binary])) {
			n.paths[f.Binary] = p
		}
	}
}

// mounts lists where file systems with programs may be mounted.
func mounts() []string {
	const most = 64
	all := []string{"/"}
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Root != "/" || m.FSType == "proc" || m.FSType == "sysfs" || m.FSType == "cgroup2", false
	})
	if err != nil {
		return all
	}
	for _, m := range infos[:min(len(infos), most)] {
		all = append(all, m.Mountpoint)
	}
	return all
}

// path joins a trail, which begins at the file.
func path(t guard.Trail) string {
	var steps []string
	for _, s := range t.Step {
		if name := guard.Text(s[:]); name != "" {
			steps = append(steps, name)
		}
	}
	slices.Reverse(steps)
	return "/" + strings.Join(steps, "/")
}

var calls = map[uint8]string{guard.HookSocket: "socket", guard.HookBind: "bind", guard.HookAccept: "accept"}

func (n names) use(u guard.Use) Use {
	one := Use{
		Call:      calls[u.Hook],
		Algorithm: afalg.Algorithm{Type: afalg.Type(guard.Text(u.Algorithm.Type[:])), Name: guard.Text(u.Algorithm.Name[:])},
		Binary:    n.paths[u.Binary],
		SHA256:    n.digests[u.Binary],
		UID:       u.User,
		Contained: u.Flags&guard.FactContained != 0,
		Allowed:   u.Allowed != 0,
	}
	var t guard.Trail
	if n.m["trails"].Lookup(u.Binary, &t) == nil {
		one.Shown = path(t)
	}
	var name guard.UnitName
	if n.m["unit_names"].Lookup(u.Cgroup, &name) == nil {
		one.Unit = strings.TrimPrefix(guard.Text(name.Name[:]), "_")
	}
	return one
}
