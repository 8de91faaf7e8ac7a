package install

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

func pretendClosure(t *testing.T) closure {
	t.Helper()
	dropIns, err := pretendDropIns(nil)
	must(t, err)
	return closureOf(dropIns)
}

func factsOf(t *testing.T, blocks ...string) unit.Facts {
	t.Helper()
	facts, err := unit.Parse([]byte(strings.Join(blocks, "\n\n")))
	must(t, err)
	return facts
}

const dropInPath = "/etc/systemd/system/service.d/zz-afalg-policy.conf"

func TestClosureOf(t *testing.T) {
	c := pretendClosure(t)
	for name, want := range map[string]string{
		"a.service": "AF_INET AF_UNIX", "iwd.service": "AF_ALG AF_UNIX", "b@1.service": "AF_INET AF_UNIX",
	} {
		if f := c.of(name); f == nil || f.String() != want {
			t.Errorf("%s: %v, want %s", name, f, want)
		}
	}
	if f := c.of(unit.AgentService); f != nil {
		t.Errorf("the agent: %v", f)
	}
}

// The drop-in for every service comes last and goes first.
func TestExceptionsFirst(t *testing.T) {
	_, _, o := rootFor(t, archiveOf("programs usr/bin/systemctl\n"))
	r, err := Install(systemdName, o)
	must(t, err)
	last := r.Changes[len(r.Changes)-1].Path
	r, err = Uninstall(systemdName, o.Root, false)
	must(t, err)
	if first := r.Changes[0].Path; last != o.Root+dropInPath || first != last || len(r.Changes) != 3 {
		t.Errorf("last in %s, first out %s", last, first)
	}
}

func TestNotInForce(t *testing.T) {
	c := pretendClosure(t)
	const loaded = "LoadState=loaded\n"
	ours := "\nNeedDaemonReload=no\nDropInPaths=" + dropInPath
	good := []string{
		"Id=a.service\n" + loaded + "RestrictAddressFamilies=AF_INET AF_UNIX" + ours,
		"Id=iwd.service\n" + loaded + "RestrictAddressFamilies=AF_ALG AF_UNIX" + ours,
		"Id=afalg-policy-agent.service\n" + loaded + "RestrictAddressFamilies=~" + ours,
		"Id=gone.service\nLoadState=masked\nRestrictAddressFamilies=~",
		"Id=a.socket\n" + loaded + "RestrictAddressFamilies=~",
	}
	must(t, c.notInForce(factsOf(t, good...)))
	open := "Id=open.service\n" + loaded + "RestrictAddressFamilies=~"
	for want, block := range map[string]string{
		`systemd has not read the drop-ins of open.service: run "systemctl daemon-reload"`:                                                                open + strings.Replace(ours, "Reload=no", "Reload=yes", 1),
		`systemd has not read the drop-ins of open.service: run "systemctl daemon-reload" `:                                                               open,
		"open.service: RestrictAddressFamilies= is set to something else by a drop-in that is read after zz-afalg-policy.conf; give that an earlier name": open + ours,
	} {
		if got := errorText(c.notInForce(factsOf(t, append(good, block)...))); got != strings.TrimSpace(want) {
			t.Errorf("%s", got)
		}
	}
}

// What systemctl shows of RestrictNamespaces= after the drop-in: not all of it is a
// list.
func TestLeavesUserNamespaces(t *testing.T) {
	dropIns := map[string][]byte{
		"service.d/zz-afalg-policy.conf":         []byte("\n[Service]\nRestrictNamespaces=~user\n"),
		"browser.service.d/zz-afalg-policy.conf": []byte("\n[Service]\nRestrictAddressFamilies=AF_UNIX\n"),
	}
	for _, tt := range []struct {
		unit, shown string
		open        bool
	}{
		{"a", "cgroup ipc net mnt pid uts", false}, {"a", "yes", false}, {"a", "no", true}, {"a", "mnt user", true}, {"a", "", true},
		{"browser", "no", false},
	} {
		facts := factsOf(t, "Id="+tt.unit+".service\nLoadState=loaded\nRestrictAddressFamilies=~\nRestrictNamespaces="+tt.shown)
		if err := closureOf(dropIns).leavesUserNamespaces(dropIns, facts); (err != nil) != tt.open {
			t.Errorf("%s, %q: %v", tt.unit, tt.shown, err)
		}
	}
}

// widens names a service that came later with a shorter list of its own.
func TestWidens(t *testing.T) {
	c := pretendClosure(t)
	const loaded = "LoadState=loaded\n"
	must(t, c.widens(factsOf(t, "Id=a.service\n"+loaded+"RestrictAddressFamilies=~", "Id=b.service\n"+loaded+"RestrictAddressFamilies=AF_INET AF_UNIX AF_NETLINK",
		"Id=iwd.service\n"+loaded+"RestrictAddressFamilies=AF_UNIX")))
	got := errorText(c.widens(factsOf(t, "Id=late.service\n"+loaded+"RestrictAddressFamilies=AF_UNIX")))
	if want := `the list of late.service is shorter than the one that was installed: run "afalg-policy install systemd" again`; got != want {
		t.Error(got)
	}
}

// This process is older than the moment, and has no filter.
func TestNotRestarted(t *testing.T) {
	c := pretendClosure(t)
	mine := "Id=a.service\nLoadState=loaded\nRestrictAddressFamilies=~\nMainPID=" + strconv.Itoa(os.Getpid())
	idle := "Id=b.service\nLoadState=loaded\nRestrictAddressFamilies=~\nMainPID=0"
	err := c.notRestarted(factsOf(t, mine, idle), host.Now())
	var stale *staleError
	if got := errorText(err); got != "a service runs as it was started before: a.service; restart them, or the machine" {
		t.Error(got)
	} else if stale = err.(*staleError); len(stale.units) != 1 {
		t.Errorf("%v", stale.units)
	}
	must(t, c.notRestarted(factsOf(t, idle), host.Now()))
}

func TestUnitStops(t *testing.T) {
	dir := t.TempDir()
	elf := func(class byte) string { return "\x7fELF" + string(class) + strings.Repeat("\x00", 11) }
	for name, text := range map[string]string{"32": elf(1), "64": elf(2), "short": "\x7fELF"} {
		write(t, dir, name, text, 0o755)
	}
	write(t, dir, "old.service", "[Service]\nExecStart=-"+dir+"/32 --x\nExecStart="+dir+"/64\n", 0o644)
	write(t, dir, "ring.service", "[Service]\nExecStart="+dir+"/short\nSystemCallFilter=@system-service io_uring_setup\n", 0o644)
	write(t, dir, "noring.service", "[Service]\nExecStart="+dir+"/none\nSystemCallFilter=~io_uring_setup\n", 0o644)
	closed, granted := *pretendClosure(t).of("a.service"), *pretendClosure(t).of("iwd.service")
	const nothing = "RestrictAddressFamilies=~\nCapabilityBoundingSet=cap_chown cap_sys_admin\nNoNewPrivileges=no\nRestrictNamespaces=no\nSystemCallFilter=~"
	for _, tt := range []struct {
		name, shown string
		f           unit.Families
		want        []string
	}{
		{"nothing", nothing, closed, nil},
		{"names AF_ALG", "RestrictAddressFamilies=AF_ALG AF_UNIX", closed, []string{stopNamed}},
		{"names AF_ALG, granted", "RestrictAddressFamilies=AF_ALG AF_UNIX", granted, nil},
		{"32-bit", nothing + "\nFragmentPath=" + dir + "/old.service", closed, []string{stop32 + " (" + dir + "/32)"}},
		{"io_uring", nothing + "\nFragmentPath=" + dir + "/ring.service", closed, []string{stopRing}},
		{"io_uring denied", nothing + "\nFragmentPath=" + dir + "/noring.service", closed, nil},
		{"another user", nothing + "\nUser=www", closed, []string{strings.Replace(stopSUID, "%s", "www", 1)}},
		{"each for its user", nothing + "\nUser=afalg-policy", closed, []string{strings.Replace(stopSUID, "%s", "its user", 1)}},
		{"no CAP_SYS_ADMIN", strings.Replace(nothing, " cap_sys_admin", "", 1), closed, []string{strings.Replace(stopSUID, "%s", "root", 1)}},
		{"no new privileges already", strings.Replace(nothing, "Privileges=no", "Privileges=yes", 1) + "\nUser=www", closed, nil},
		{"a filter already", nothing + "\nUser=www\nLockPersonality=yes", closed, nil},
	} {
		s := factsOf(t, "Id=a.service\n"+tt.shown)["a.service"]
		if diff := cmp.Diff(tt.want, unitStops(s, tt.f)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// A socket's protocol can be read from outside, as that of AF_ALG is.
func TestProtocolOf(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	must(t, err)
	defer f.Close()
	if got := protocolOf("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))); !strings.HasPrefix(got, "UNIX") {
		t.Errorf("%q", got)
	}
	if got := protocolOf("/proc/self/exe"); got != "" {
		t.Errorf("a file: %q", got)
	}
}

// A process's open files are seen from outside: here, a ring of this one.
func TestProcessStops(t *testing.T) {
	closed := *pretendClosure(t).of("a.service")
	if got := processStops("/proc/self", closed); got != nil {
		t.Errorf("before: %q", got)
	}
	kerneltest.NeedRing(t)
	self, err := os.Executable()
	must(t, err)
	want := []string{stopRing + " (process self, " + self + ")"}
	if diff := cmp.Diff(want, processStops("/proc/self", closed)); diff != "" {
		t.Error(diff)
	}
}
