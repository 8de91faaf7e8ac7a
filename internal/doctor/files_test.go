package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

func TestBlocked(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, ""},
		{"refused", map[string]string{"etc/modprobe.d/a.conf": "# x\ninstall algif-aead /bin/false\n"}, "algif_aead"},
		{"a line that goes on", map[string]string{"etc/modprobe.d/a.conf": "install algif_aead \\\n /bin/true"}, "algif_aead"},
		{"blacklist stops no request", map[string]string{"etc/modprobe.d/a.conf": "blacklist algif_aead\n"}, ""},
		{"a command that may load it", map[string]string{"etc/modprobe.d/a.conf": "install algif_aead /bin/false || modprobe -i algif_aead\n"}, ""},
		{"two commands", map[string]string{"etc/modprobe.d/a.conf": "install algif_aead /bin/false\n", "usr/lib/modprobe.d/b.conf": "install algif_aead /sbin/load\n"}, ""},
		{"hidden by a file of the same name", map[string]string{"etc/modprobe.d/a.conf": "", "usr/lib/modprobe.d/a.conf": "install algif_aead /bin/false\n"}, ""},
		{"of another kind", map[string]string{"etc/modprobe.d/a.txt": "install algif_aead /bin/false\n"}, ""},
		{"a comment", map[string]string{"etc/modprobe.d/a.conf": "#install algif_aead /bin/false\n"}, ""},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			hosttest.Write(t, root, name, text, 0o644)
		}
		blocked, err := readBlocked(root)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var names []string
		for name := range blocked {
			names = append(names, name)
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, want %q", c.name, blocked, c.want)
		}
	}
	root := t.TempDir()
	hosttest.Write(t, root, "etc/modprobe.d/a.conf", strings.Repeat("x", maxModprobe+1), 0o644)
	if _, err := readBlocked(root); err == nil {
		t.Error("a file that is too large is no error")
	}
}

func TestKnown(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{"usr/libexec/iwd", "usr/bin/openssl", "usr/lib/systemd/systemd-networkd", "usr/sbin/swanctl", "usr/libexec/qemu-kvm"} {
		hosttest.Write(t, root, path, path, 0o755)
	}
	hosttest.Must(t, os.MkdirAll(filepath.Join(root, "usr/bin/kcapi-hasher"), 0o755)) // no program
	hosttest.Write(t, root, "var/lib/dpkg/info/iwd:amd64.list", "/.\n/usr/libexec/iwd\n", 0o644)
	hosttest.Write(t, root, "usr/lib/systemd/libsystemd-shared-252.so", "", 0o644)
	names := func() (names []string) {
		all, err := knownHere(root)
		hosttest.Must(t, err)
		for _, k := range all {
			names = append(names, k.preset+" "+k.path+" "+k.pkg)
		}
		return names
	}
	if got, want := names(), []string{"iwd /usr/libexec/iwd iwd"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	hosttest.Write(t, root, "usr/lib/x86_64-linux-gnu/engines-3/afalg.so", "", 0o644)
	hosttest.Write(t, root, "usr/lib/ipsec/plugins/libstrongswan-af-alg.so", "", 0o644)
	hosttest.Write(t, root, "etc/oracle-release", "", 0o644)
	hosttest.Must(t, os.Rename(filepath.Join(root, "usr/lib/systemd/libsystemd-shared-252.so"), filepath.Join(root, "usr/lib/systemd/libsystemd-shared-249.so")))
	want := []string{"iwd /usr/libexec/iwd iwd", "openssl-afalg /usr/bin/openssl ", "qemu /usr/libexec/qemu-kvm ", "strongswan /usr/sbin/swanctl ", "systemd-before-250 /usr/lib/systemd/systemd-networkd "}
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestListing(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"usr/lib/systemd/system/a.service":               "[Service]\nRestrictAddressFamilies=AF_UNIX \\\n AF_ALG\n",
		"usr/lib/systemd/system/b.service":               "[Service]\nRestrictAddressFamilies=AF_UNIX\n",
		"etc/systemd/system/b.service.d/more.conf":       "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/c.service":               "[Service]\nRestrictAddressFamilies=~AF_ALG\n",
		"usr/lib/systemd/system/d.service":               "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"etc/systemd/system/d.service":                   "[Service]\n# AF_ALG\n",
		"usr/lib/systemd/system/e.service":               "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"etc/systemd/system/e.service.d/reset.conf":      "[Service]\nRestrictAddressFamilies=\n",
		"usr/lib/systemd/system/f@.service":              "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/g.service":               "[Service]\nRestrictAddressFamilies=AF_UNIX\n",
		"etc/systemd/system/g.service.d/" + unit.Closure: "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/h.target":                "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"etc/systemd/system/i.service.d/none.conf":       "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/j.service":               "[Unit]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/k\\x2d\x1b.service":      "[Service]\nRestrictAddressFamilies=AF_ALG\n",
		"usr/lib/systemd/system/l.service":               strings.Repeat("#", maxUnit) + "\n[Service]\nRestrictAddressFamilies=AF_ALG\n",
	} {
		hosttest.Write(t, root, name, text, 0o644)
	}
	hosttest.Must(t, os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system/m.service")))
	hosttest.Write(t, root, "usr/lib/systemd/system/m.service", "[Service]\nRestrictAddressFamilies=AF_ALG\n", 0o644)
	names, err := listing(root)
	if want := []string{"a.service", "b.service", "f@.service"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if err == nil || !strings.Contains(err.Error(), "l.service: larger than") || strings.Contains(err.Error(), "m.service") {
		t.Errorf("unread: %v", err)
	}
}

func TestReadLog(t *testing.T) {
	dir := t.TempDir()
	hosttest.Write(t, dir, "log", `{"time":"2026-10-01T12:00:00Z","executable":"/a","call":"bind","algorithm":"hash:sha1","verdict":"allowed","rule":"r"}
{"time":"2026-11-01T12:00:00Z","executable":"/a","call":"bind","algorithm":"hash:sha1","verdict":"allowed","rule":"r"}
`, 0o644)
	var l logged
	hosttest.Must(t, l.read1(filepath.Join(dir, "log")))
	if l.read != 1 || l.missing || len(l.lines) != 1 || l.first.Month() != time.October || l.last.Month() != time.November || l.lines[0].Time.Month() != time.November {
		t.Errorf("%+v", l)
	}
	hosttest.Write(t, dir, "holes", `{"time":"2026-10-01T12:00:00Z","verdict":"denied","dropped":3}`+"\n", 0o644)
	hosttest.Must(t, l.read1(filepath.Join(dir, "holes")))
	if !l.missing {
		t.Error("lines are missing, and nobody says so")
	}
	for _, path := range []string{dir, "/dev/zero", filepath.Join(dir, "none")} {
		if err := new(logged).read1(path); err == nil {
			t.Errorf("%s is a log", path)
		}
	}
}

// The files of a host alone show nothing that runs, and change nothing.
func TestRoot(t *testing.T) {
	root := t.TempDir()
	hosttest.Write(t, root, "etc/hostname", "far\n", 0o644)
	hosttest.Write(t, root, "etc/os-release", "PRETTY_NAME=\"Some \x1b[2J Linux\"\n", 0o644)
	hosttest.Write(t, root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o644)
	hosttest.Write(t, root, "usr/libexec/iwd", "", 0o755)
	before := hosttest.Snapshot(t, root)
	d, err := Examine(context.Background(), Options{Root: root})
	hosttest.Must(t, err)
	hosttest.Equal(t, "the host", before, hosttest.Snapshot(t, root))
	if d.Host.Name != "far" || d.Host.ID == "" || strings.Contains(d.Host.ID, "0123") || d.Verdict != report.Undecided || len(d.Unasked) < 4 {
		t.Errorf("%+v, %s, %+v", d.Host, d.Verdict, d.Unasked)
	}
	if len(d.Users) != 1 || d.Users[0].Name != "iwd" || d.Users[0].State != report.Unknown {
		t.Errorf("%+v", d.Users)
	}
	if _, err := Examine(context.Background(), Options{Root: filepath.Join(root, "none")}); err == nil {
		t.Error("a root that is not there is a host")
	}
}

// This host is the same before and after: no module is loaded.
func TestThisHost(t *testing.T) {
	modules := func() string {
		text, _ := os.ReadFile("/proc/modules")
		protocols, _ := os.ReadFile("/proc/net/protocols")
		var names []string
		for line := range strings.Lines(string(text) + string(protocols)) {
			names = append(names, strings.Fields(line + " x")[0])
		}
		return strings.Join(names, " ")
	}
	before, start := modules(), time.Now()
	d, err := Examine(context.Background(), Options{Root: "/"})
	hosttest.Must(t, err)
	t.Logf("it took %v", time.Since(start))
	if modules() != before {
		t.Error("modules were loaded")
	}
	if d.Host.Kernel == "" || len(d.Matrix.Rows) == 0 || d.Host.AFALG == report.Unknown {
		t.Errorf("%+v", d.Host)
	}
}

func TestHidden(t *testing.T) {
	for _, c := range []struct {
		name, namespace string
		first, hidden   bool
	}{
		{"the host", initialPIDs, true, false},
		{"a container", "pid:[4026532000]", true, true},
		{"hidepid", initialPIDs, false, true},
		{"no procfs", "", true, true},
	} {
		proc := t.TempDir()
		hosttest.Must(t, os.MkdirAll(filepath.Join(proc, "self/ns"), 0o755))
		if c.namespace != "" {
			hosttest.Must(t, os.Symlink(c.namespace, filepath.Join(proc, "self/ns/pid")))
		}
		if c.first {
			hosttest.Must(t, os.Mkdir(filepath.Join(proc, "1"), 0o755))
		}
		if err := hidden(proc); (err != nil) != c.hidden {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
