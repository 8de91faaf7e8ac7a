package subject

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseCgroup(t *testing.T) {
	long := strings.Repeat("a", maxUnit-len(".service"))
	for _, tt := range []struct{ text, unit, err string }{
		{"0::/system.slice/cron.service\n", "cron.service", ""},
		{"0::/init.scope\n", "init.scope", ""},
		{"0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service", ""},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/fips.service\n", "user@1000.service", ""},
		{"0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope", ""},
		{"0::/system.slice/docker-0123.scope/init.scope\n", "docker-0123.scope", ""},
		{"0::/system.slice/_cgroup.service\n", "cgroup.service", ""},
		{"0::/_a.slice/__b.service\n", "_b.service", ""},
		{"0::/system.slice/a\\x2db@c@d.mount\n", "a\\x2db@c@d.mount", ""},
		{"0::/" + long + ".service\n", long + ".service", ""},
		{"0::/a" + long + ".service\n", "", `no unit in cgroup "/a` + long + `.service"`},
		{"0::/\n", "", `no unit in cgroup "/"`},
		{"0::/system.slice\n", "", `no unit in cgroup "/system.slice"`},
		{"0::/docker/0123/system.slice/cron.service\n", "", `no unit in cgroup "/docker/0123/system.slice/cron.service"`},
		{"0::/system.slice/cron.service (deleted)\n", "", `no unit in cgroup "/system.slice/cron.service (deleted)"`},
		{"0::/system.slice/cron.servic\n", "", `no unit in cgroup "/system.slice/cron.servic"`},
		{"0::/a@.service\n", "", `no unit in cgroup "/a@.service"`},
		{"0::/@a.service\n", "", `no unit in cgroup "/@a.service"`},
		{"0::/.service\n", "", `no unit in cgroup "/.service"`},
		{"0::/a@b.slice/cron.service\n", "", `no unit in cgroup "/a@b.slice/cron.service"`},
		{"0::/a b.service\n", "", `no unit in cgroup "/a b.service"`},
		{"0::/é.service\n", "", `no unit in cgroup "/é.service"`},
		{"0::/../cron.service\n", "", `cgroup "/../cron.service" is outside the visible hierarchy`},
		{"0::/system.slice/..\n", "", `cgroup "/system.slice/.." is outside the visible hierarchy`},

		{"9:name=systemd:/system.slice/cron.service\n1:cpu:/a.service\n", "cron.service", ""},
		{"9:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service", ""},
		{"9:name=systemd:/\n0::/system.slice/cron.service\n", "cron.service", ""},
		{"9:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service/x\n", "cron.service", ""},
		{"9:name=systemd:/a.service\n0::/b.service\n", "", "cgroups disagree: b.service in the unified hierarchy, a.service in the one called systemd"},
		{"9:name=systemd:/a.service\n0::/b\n", "", `no unit in cgroup "/b"`},
		{"9:name=systemd:/a\n0::/b.service\n", "", `no unit in cgroup "/a"`},
		{"9:name=systemd:/\n0::/\n", "", `no unit in cgroup "/"`},
		{"9:name=systemd:/a:b.service\n", "a:b.service", ""},

		{"1:name=elogind:/a.service\n", "", "in no cgroup hierarchy of systemd"},
		{"1:cpu,name=systemd:/a.service\n", "", "in no cgroup hierarchy of systemd"},
		{"", "", `cgroup list "" is cut off`},
		{"0::/system.slice/a.service", "", `cgroup list "0::/system.slice/a.service" is cut off`},
		{"0:/a.service\n", "", `cgroup "0:/a.service\n": no ID:CONTROLLERS:PATH`},
		{"0::a.service\n", "", `cgroup "0::a.service\n": no ID:CONTROLLERS:PATH`},
	} {
		unit, err := parseCgroup(tt.text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if unit != tt.unit || got != tt.err {
			t.Errorf("%q: %q, %q\nwant %q, %q", tt.text, unit, got, tt.unit, tt.err)
		}
	}
}

// TestUnit reads the unit of a real cgroup, in every hierarchy that systemd
// could maintain.
func TestUnit(t *testing.T) {
	r := newReader(t, Options{Units: true})
	c := start(t, command("wait", program))
	unit := fmt.Sprintf("afalg-policy-test-%d.service", os.Getpid())
	for _, root := range cgroupMounts(t) {
		dir := filepath.Join(root, unit, "payload")
		must(t, os.MkdirAll(dir, 0o755))
		t.Cleanup(func() {
			c.end()
			must(t, os.Remove(dir))
			must(t, os.Remove(filepath.Dir(dir)))
		})
		must(t, os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, c.pid), 0))
	}
	for range 2 {
		s := r.Look(c.pid)
		if s.Unit != unit || s.Why(Unit) != "" {
			t.Errorf("unit %q, because %q, want %q", s.Unit, s.Why(Unit), unit)
		}
	}
	for _, root := range cgroupMounts(t) { // the same task, moved
		must(t, os.WriteFile(root+"/cgroup.procs", fmt.Append(nil, c.pid), 0))
	}
	if s := r.Look(c.pid); s.Unit != "" || s.Why(Unit) != `no unit in cgroup "/"` {
		t.Errorf("unit %q, because %q, at the root", s.Unit, s.Why(Unit))
	}
	if s := newReader(t, Options{}).Look(c.pid); s.Unit != "" || s.Why(Unit) != "" {
		t.Errorf("not asked for: unit %q, because %q", s.Unit, s.Why(Unit))
	}
}

// cgroupMounts lists the places where systemd's hierarchies are mounted as a
// whole, each once: a prepared chroot shows them again.
func cgroupMounts(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	must(t, err)
	defer f.Close()
	var dirs []string
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, system, _ := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(mount), strings.Fields(system)
		device, root, dir := where[2], where[3], where[4]
		named := what[0] == "cgroup" && slices.Contains(strings.Split(what[2], ","), "name=systemd")
		if (named || what[0] == "cgroup2") && root == "/" && !seen[device] {
			seen[device] = true
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		t.Fatal("neither a cgroup2 nor systemd's hierarchy is mounted")
	}
	return dirs
}

func TestReaderInOtherCgroupNamespace(t *testing.T) {
	c := start(t, command("wait", program))
	s := looked(t, command("look", "unshare", "-C", program, "plain", fmt.Sprint(c.pid)))[0]
	if want := "the reader is in a cgroup namespace of its own"; s.Unit != "" || s.Why(Unit) != want {
		t.Errorf("unit %q, because %q", s.Unit, s.Why(Unit))
	}
}

var (
	unitPattern  = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.(service|socket|target|device|mount|automount|swap|timer|path|slice|scope)$`)
	slicePattern = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+\.slice$`)
)

// systemdUnit is cg_path_get_unit of systemd, with its grammar as patterns.
func systemdUnit(path string) string {
	for {
		path = strings.TrimLeft(path, "/")
		component, rest, _ := strings.Cut(path, "/")
		name, _ := strings.CutPrefix(component, "_")
		if len(name) <= maxUnit && slicePattern.MatchString(name) {
			path = rest
			continue
		}
		if len(name) > maxUnit || !unitPattern.MatchString(name) || strings.HasSuffix(name, ".slice") {
			return ""
		}
		return name
	}
}

func FuzzCgroup(f *testing.F) {
	for _, path := range []string{"system.slice/cron.service", "a.slice/_b@c.scope/d", "../x.service", "a.b.slice//x.mount\n0::/y.service", "@.slice"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		_, _ = parseCgroup(path)
		if strings.Contains(path, "\n") {
			return
		}
		unit, err := parseCgroup("0::/" + path + "\n")
		if want := systemdUnit(path); unit != want || (err == nil) != (want != "") {
			t.Fatalf("%q: %q, %v, systemd says %q", path, unit, err, want)
		}
		named, _ := parseCgroup("1:name=systemd:/" + path + "\n")
		both, _ := parseCgroup("1:name=systemd:/" + path + "\n0::/" + path + "\n")
		if named != unit || both != unit {
			t.Fatalf("%q: %q, %q by name, %q in both", path, unit, named, both)
		}
	})
}
