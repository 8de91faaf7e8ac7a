//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	lsmPolicy   = "/etc/afalg-policy/lsm.yaml"
	lsmListed   = "/usr/local/bin/listed"
	lsmUnlisted = "/usr/local/bin/unlisted"
	lsmUnit     = "afalg-policy-lsm.service"

	lsmOpen   = "38 open\n"
	lsmDenied = "38 EAFNOSUPPORT\n"
)

const lsmPolicyText = `version: 1
name: installed
allow:
  - rule: listed
    binaries: [` + lsmListed + `]
    algorithms: {hash: [sha1]}
`

// lsmUpgrade is a package whose installation, by apt, runs the hook.
const lsmUpgrade = `set -e
mkdir -p /tmp/deb/DEBIAN
printf 'Package: afalg-upgrade\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: nothing\n' >/tmp/deb/DEBIAN/control
dpkg-deb --build /tmp/deb /tmp/upgrade.deb
apt-get install -y -o APT::Sandbox::User=root /tmp/upgrade.deb`

// TestLongLSMInstall installs the kernel half on a running host: on one kernel, for
// the service manager is the same on both. TestLongLSMBoot boots both.
func TestLongLSMInstall(t *testing.T) {
	client := clients(t)["x86-64"]
	t.Parallel()
	vm := Boot(t, "6.12", Options{Systemd: true})
	h := &lsmHost{vm}
	vm.Output(t, "install", "-D", program(t), installed)
	vm.Output(t, "install", client, lsmListed)
	vm.Output(t, "install", client, lsmUnlisted)
	vm.WriteFile(t, lsmPolicy, []byte(lsmPolicyText), 0o644)
	before := h.snapshot(t)
	h.expect(t, "before", lsmUnlisted, lsmOpen)
	t.Run("cannot", h.testCannot)
	t.Run("rolled back", func(t *testing.T) { h.testRollBack(t, before) })
	t.Run("audit", h.testAudit)
	t.Run("installed", h.testInstalled)
	t.Run("doctor", h.testDoctor)
	t.Run("upgraded", h.testUpgraded)
	t.Run("pins removed", h.testPinsRemoved)
	t.Run("unmounted", h.testUnmounted)
	t.Run("not held", h.testNotHeld)
	t.Run("uninstalled", func(t *testing.T) { h.testUninstalled(t, before) })
}

// lsmHost is a machine with systemd on which the kernel half is installed.
type lsmHost struct{ vm *VM }

// run runs the program. A load takes its time.
func (h *lsmHost) run(t *testing.T, args ...string) Result {
	t.Helper()
	return h.vm.Command(t, Command{Args: append([]string{installed}, args...), Timeout: 5 * time.Minute})
}

// must runs a command that has to end with 0.
func (h *lsmHost) must(t *testing.T, args ...string) {
	t.Helper()
	r := h.vm.Command(t, Command{Args: args, Timeout: 5 * time.Minute})
	if r.Exit != 0 || r.Error != "" {
		t.Fatalf("%s: exit status %d %s\n%s%s", strings.Join(args, " "), r.Exit, r.Error, r.Stdout, r.Stderr)
	}
}

func (h *lsmHost) install(t *testing.T, args ...string) {
	t.Helper()
	h.must(t, append([]string{installed, "install", "lsm", "--policy", lsmPolicy}, args...)...)
}

func (h *lsmHost) expect(t *testing.T, when, client, want string) {
	t.Helper()
	if got := string(h.vm.Run(t, client, "38").Stdout); got != want {
		t.Errorf("%s: %s says %q, want %q", when, client, got, want)
	}
}

// decides expects that the policy does.
func (h *lsmHost) decides(t *testing.T, when string) {
	t.Helper()
	h.expect(t, when, lsmListed, lsmOpen)
	h.expect(t, when, lsmUnlisted, lsmDenied)
}

func (h *lsmHost) snapshot(t *testing.T) string {
	t.Helper()
	return h.vm.Output(t, "sh", "-c", `find /etc/afalg-policy /etc/systemd /etc/apt /var/lib/afalg-policy -printf '%p %y %m %l %T@\n' 2>/dev/null | grep -v '^/[^ ]* d ' | sort`)
}

// status asks for the platform, and expects its answers.
func (h *lsmHost) status(t *testing.T, when string, want map[string]any, reasons ...string) {
	t.Helper()
	r := h.run(t, "status", "lsm", "--json")
	var report struct {
		Platforms []map[string]any
	}
	if err := json.Unmarshal(r.Stdout, &report); err != nil || len(report.Platforms) != 1 {
		t.Fatalf("%s: exit status %d: %v\n%s%s", when, r.Exit, err, r.Stdout, r.Stderr)
	}
	got := report.Platforms[0]
	told := fmt.Sprint(got["reasons"])
	delete(got, "reasons")
	all := map[string]any{"platform": "lsm", "policy": "yes", "installed": "yes", "active": "yes", "agent": "not needed", "probed": "yes"}
	for k, v := range want {
		all[k] = v
	}
	if d := cmp.Diff(all, got); d != "" {
		t.Errorf("%s: -want +got:\n%s%s", when, d, told)
	}
	for _, reason := range reasons {
		if !strings.Contains(told, reason) {
			t.Errorf("%s: %q is not among the reasons %s", when, reason, told)
		}
	}
	good := all["active"] == "yes" || all["active"] == "audit"
	if good != (r.Exit == 0) {
		t.Errorf("%s: exit status %d", when, r.Exit)
	}
	check := h.vm.Run(t, "systemctl", "start", "afalg-policy-lsm-check.service")
	if good != (check.Exit == 0) {
		t.Errorf("%s: the check ends with %d\n%s", when, check.Exit, check.Stderr)
	}
}

// testCannot expects the status of a host that cannot, and no file.
func (h *lsmHost) testCannot(t *testing.T) {
	h.vm.Output(t, "umount", "-l", "/sys/fs/bpf")
	before := h.snapshot(t)
	r := h.run(t, "install", "lsm", "--policy", lsmPolicy)
	if r.Exit != 3 || !strings.Contains(string(r.Stderr), "/sys/fs/bpf") {
		t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
	}
	if d := cmp.Diff(before, h.snapshot(t)); d != "" {
		t.Error(d)
	}
	h.vm.Output(t, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
}

// testRollBack has the service fail.
func (h *lsmHost) testRollBack(t *testing.T, before string) {
	const dropIn = "/etc/systemd/system/" + lsmUnit + ".d"
	h.vm.WriteFile(t, dropIn+"/fail.conf", []byte("[Service]\nExecStartPost=/bin/false\n"), 0o644)
	r := h.run(t, "install", "lsm", "--policy", lsmPolicy)
	if r.Exit != 3 || !strings.Contains(string(r.Stderr), "everything is as it was") {
		t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
	}
	h.vm.Output(t, "rm", "-r", dropIn)
	if d := cmp.Diff(before, h.snapshot(t)); d != "" {
		t.Error(d)
	}
	h.expect(t, "rolled back", lsmUnlisted, lsmOpen)
	if got := h.vm.Output(t, "sh", "-c", "ls /sys/fs/bpf"); got != "" {
		t.Errorf("pins are left: %s", got)
	}
}

func (h *lsmHost) testAudit(t *testing.T) {
	h.install(t, "--audit")
	h.expect(t, "audit", lsmUnlisted, lsmOpen)
	h.status(t, "audit", map[string]any{"active": "audit", "probed": "not asked"}, "audit: everything is allowed")
}

func (h *lsmHost) testInstalled(t *testing.T) {
	h.install(t)
	h.decides(t, "installed")
	h.status(t, "installed", nil)
	units := h.vm.Output(t, "sh", "-c", "systemd-analyze verify --man=no /etc/systemd/system/afalg-policy-lsm* 2>&1 | grep afalg; true")
	if units != "" {
		t.Error(units)
	}
	for property, want := range map[string]string{"Before": "sysinit.target", "WantedBy": "sysinit.target"} {
		if got := h.vm.Output(t, "systemctl", "show", "--value", "--property", property, lsmUnit); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", property, got, want)
		}
	}
	if got := h.vm.Output(t, "systemctl", "show", "--value", "--property=After", lsmUnit); strings.Contains(got, "basic.target") || strings.Contains(got, "bpf") {
		t.Errorf("it waits for %s", got)
	}
	h.vm.Output(t, "systemctl", "daemon-reexec")
	h.must(t, "systemctl", "restart", lsmUnit)
	h.decides(t, "restarted")
	h.status(t, "restarted", nil)
}

// replaceListed puts another file in the place of the listed executable, as an
// upgrade does.
const replaceListed = "cp " + lsmUnlisted + " " + lsmListed + ".new && mv " + lsmListed + ".new " + lsmListed

func (h *lsmHost) testUpgraded(t *testing.T) {
	h.vm.Output(t, "systemctl", "stop", "afalg-policy-lsm.path")
	h.vm.Output(t, "sh", "-c", replaceListed)
	h.expect(t, "unseen", lsmListed, lsmDenied)
	h.must(t, "sh", "-c", lsmUpgrade)
	h.decides(t, "refreshed by apt")
	h.vm.Output(t, "systemctl", "start", "afalg-policy-lsm.path")
	h.must(t, "sh", "-c", replaceListed+" && until "+lsmListed+" 38 | grep -q open; do sleep .2; done")
	h.decides(t, "refreshed by the path unit")
	h.must(t, "sh", "-c", "while systemctl is-active afalg-policy-lsm-refresh.service | grep -q activating; do sleep .2; done")
	h.status(t, "upgraded", nil)
}

func (h *lsmHost) testPinsRemoved(t *testing.T) {
	h.vm.Output(t, "sh", "-c", "rm /sys/fs/bpf/afalg-policy/link_guard_socket")
	h.decides(t, "without a pin")
	h.status(t, "without a pin", map[string]any{"active": "no"}, "guard_socket: its pin is gone: it decides for as long as somebody holds it")
	if r := h.run(t, "lsm", "status"); r.Exit != 1 {
		t.Errorf("lsm status: exit status %d\n%s", r.Exit, r.Stderr)
	}
	h.must(t, "systemctl", "reload", lsmUnit)
	h.decides(t, "reloaded")
	h.status(t, "reloaded", nil)
}

func (h *lsmHost) testUnmounted(t *testing.T) {
	h.vm.Output(t, "umount", "-l", "/sys/fs/bpf")
	h.decides(t, "unmounted")
	h.status(t, "unmounted", map[string]any{"active": "no"}, "/sys/fs/bpf")
	h.vm.Output(t, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
	h.decides(t, "mounted anew")
	h.status(t, "mounted anew", map[string]any{"active": "no"}, "its pin is gone")
	h.must(t, "systemctl", "reload", lsmUnit)
	h.decides(t, "mounted and reloaded")
	h.status(t, "mounted and reloaded", nil)
}

// testNotHeld shows what the service manager is for: a stopped service holds
// nothing, and then the pins are all.
func (h *lsmHost) testNotHeld(t *testing.T) {
	h.vm.Output(t, "systemctl", "stop", lsmUnit)
	h.decides(t, "stopped")
	h.status(t, "stopped", map[string]any{"active": "no"}, lsmUnit+" is inactive")
	// The kernel frees a link some time later.
	h.must(t, "sh", "-c", "rm /sys/fs/bpf/afalg-policy/link_* && until "+lsmUnlisted+" 38 | grep -q open; do sleep .2; done")
	h.status(t, "stopped, and without pins", map[string]any{"active": "no", "probed": "no"}, "its pin is gone: it decides no more")
	h.must(t, "systemctl", "start", lsmUnit)
	h.decides(t, "started again")
	h.status(t, "started again", nil)
}

func (h *lsmHost) testUninstalled(t *testing.T, before string) {
	h.must(t, installed, "uninstall", "lsm")
	h.expect(t, "uninstalled", lsmUnlisted, lsmOpen)
	if d := cmp.Diff(before, h.snapshot(t)); d != "" {
		t.Error(d)
	}
	if got := h.vm.Output(t, "sh", "-c", "ls /sys/fs/bpf; systemctl list-units --all --plain --no-legend 'afalg-policy-lsm*' | grep -v not-found; true"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// lsmWitness asks the kernel at boot.
const lsmWitness = `[Unit]
DefaultDependencies=no
After=` + lsmUnit + `
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c '` + lsmUnlisted + ` 38 >/run/unlisted; ` + lsmListed + ` 38 >/run/listed; systemctl is-active sysinit.target >/run/sysinit; true'
`

// TestLongLSMBoot boots an image in which the kernel half is installed.
func TestLongLSMBoot(t *testing.T) {
	client := clients(t)["x86-64"]
	dir := t.TempDir()
	copyFile(t, program(t), filepath.Join(dir, installed), 0o755)
	copyFile(t, client, filepath.Join(dir, lsmListed), 0o755)
	copyFile(t, client, filepath.Join(dir, lsmUnlisted), 0o755)
	write(t, filepath.Join(dir, lsmPolicy), lsmPolicyText, 0o644)
	write(t, filepath.Join(dir, "usr/bin/systemctl"), "", 0o755)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program(t), "install", "lsm", "--root", dir, "--policy", lsmPolicy, "--program", installed).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "usr/bin/systemctl")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "etc/systemd/system/witness.service"), lsmWitness, 0o644)
	write(t, filepath.Join(dir, "etc/systemd/system/late.service"), "[Service]\nExecStart=/bin/sleep infinity\n", 0o644)
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			vm := Boot(t, version, Options{Systemd: true, Before: "cd " + dir + ` && cp -a . / && cd /etc/systemd/system
mkdir -p vmtest.target.wants sysinit.target.wants
ln -s ../late.service vmtest.target.wants
ln -s ../witness.service sysinit.target.wants`})
			h := &lsmHost{vm}
			h.must(t, "sh", "-c", "until systemctl is-active -q late.service; do sleep .2; done")
			for file, want := range map[string]string{"/run/unlisted": lsmDenied, "/run/listed": lsmOpen, "/run/sysinit": "inactive\n"} {
				if got := string(vm.ReadFile(t, file)); got != want {
					t.Errorf("%s: %q, want %q", file, got, want)
				}
			}
			h.decides(t, "booted")
			if r := h.run(t, "lsm", "status"); r.Exit != 0 {
				t.Errorf("lsm status: exit status %d\n%s", r.Exit, r.Stderr)
			}
			if got := vm.Output(t, "systemctl", "show", "--value", "--property=NFileDescriptorStore", lsmUnit); got == "0" {
				t.Error("the service manager holds nothing")
			}
		})
	}
}
