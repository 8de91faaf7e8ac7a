//go:build vm

package box

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A box that changes everything it can leaves the host as it was. Other boxes
// come and go meanwhile.
func TestBoxLeavesNothing(t *testing.T) {
	hostname, _ := os.Hostname()
	var b *box
	before := hostState(t)
	t.Run("box", func(t *testing.T) {
		started, m := start(t)
		b = started
		m.Output(t, "sh", "-c", `set -e
for d in etc usr/lib var/lib var/log run tmp root srv; do mkdir -p /$d; echo >/$d/box-test; done
rm -rf /etc/passwd /usr/share/doc
hostname changed
ip link add box-test type dummy || ip link set lo up
mkdir /sys/fs/cgroup/box-test
mkdir -p /mnt && mount -t tmpfs box-test /mnt
ipcmk -Q
bash -c 'exec -a "$0" sleep 1000 & echo $! >/sys/fs/cgroup/box-test/cgroup.procs' "$0" </dev/null >/dev/null 2>&1`, b.name)
		for what, seen := range traces(t, b) {
			if !seen && what != "mount" {
				t.Errorf("a running box has no %s: so what is left of it would not be seen, either", what)
			}
		}
	})
	for what, seen := range traces(t, b) {
		if seen {
			t.Errorf("the box left a %s", what)
		}
	}
	if d := cmp.Diff(before, hostState(t)); d != "" {
		t.Errorf("the host, -before +after:\n%s", d)
	}
	if now, _ := os.Hostname(); now != hostname {
		t.Errorf("the host is now %s", now)
	}
}

// The traces of a box are found, and not confused with another one's.
func TestBoxTraces(t *testing.T) {
	name := filepath.Base(t.TempDir()) // a number of three digits, which no box has
	leftover := &box{name: "afalg-policy-box4711" + name, shared: filepath.Join(os.TempDir(), "box4711"+name)}
	before := hostState(t)
	for _, dir := range []string{leftover.shared, filepath.Join(cgroupRoot(t), leftover.name)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Rmdir(dir) })
	}
	if err := unix.Mount(leftover.name, leftover.shared, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(leftover.shared, unix.MNT_DETACH) })
	process := exec.Command("sleep", "1000")
	process.Args[0] = leftover.name
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Process.Kill(); process.Wait() })

	for what, seen := range traces(t, leftover) {
		if !seen {
			t.Errorf("a %s that is left is not seen", what)
		}
	}
	for what, seen := range traces(t, &box{name: "afalg-policy-box4712" + name, shared: filepath.Join(os.TempDir(), "box4712"+name)}) {
		if seen {
			t.Errorf("the %s of one box is taken for another's", what)
		}
	}
	if d := cmp.Diff(before, hostState(t)); d != "" {
		t.Errorf("what a box has is taken for the host's, -before +after:\n%s", d)
	}
}

// cgroupRoot is a hierarchy in which boxes have cgroups.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			return root
		}
	}
	t.Fatal("no cgroup2 is mounted")
	return ""
}

// traces reports the traces of a box on the host.
func traces(t *testing.T, b *box) map[string]bool {
	t.Helper()
	named := func(name string) bool { return strings.Contains(name, b.name) || strings.Contains(name, b.shared) }
	return map[string]bool{
		"mount":   slices.ContainsFunc(lines(t, "/proc/self/mounts"), named),
		"cgroup":  slices.ContainsFunc(list(t, "/sys/fs/cgroup", 2), named),
		"file":    slices.ContainsFunc(list(t, filepath.Dir(b.shared), 1), named) || slices.ContainsFunc(list(t, "/run", 4), named),
		"process": slices.ContainsFunc(processes(t), named),
	}
}

// ofBoxes matches names that belong to some box, or to go test, which has
// directories for packages that run at the same time.
var ofBoxes = regexp.MustCompile(`\bbox\d+|/go-build|/Test`)

// hostState lists the parts of the host that a box could change, and that
// seldom change otherwise.
func hostState(t *testing.T) []string {
	t.Helper()
	state := slices.Concat(lines(t, "/proc/self/mounts"), lines(t, "/proc/sysvipc/msg"), list(t, "/sys/class/net", 1))
	for _, dir := range []string{"/etc", "/var/lib", "/srv", "/root"} {
		state = append(state, list(t, dir, 2)...)
	}
	// Others are at work here. These are the names of things inside a box.
	inside := regexp.MustCompile(`box|nspawn|payload|supervisor|vmtest`)
	for _, dir := range []string{"/sys/fs/cgroup", "/run", "/tmp"} {
		state = append(state, slices.DeleteFunc(list(t, dir, 4), func(path string) bool { return !inside.MatchString(path) })...)
	}
	return slices.DeleteFunc(state, ofBoxes.MatchString)
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(data)))
}

// processes lists the command lines of all running processes.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil { // it may have ended
			commands = append(commands, string(data))
		}
	}
	return commands
}

// list returns the names in a directory, so many levels deep.
func list(t *testing.T, root string, depth int) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil { // it is gone
			return nil
		}
		paths = append(paths, path)
		if d.IsDir() && strings.Count(strings.TrimPrefix(path, root), "/") >= depth {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
