//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// brokerUnit is the drop-in of docs/will-it-break.md that puts a broker into
// iwd's unit.
var brokerUnit = regexp.MustCompile("(?s)```ini\n(.*?)```")

// diskUnit is what systemd-cryptsetup-generator writes for a line of crypttab, where
// it finds a machine with disks.
const diskUnit = `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/lib/systemd/systemd-cryptsetup attach disk /run/volume /run/password luks
ExecStop=/lib/systemd/systemd-cryptsetup detach disk
`

// TestLongUnits runs iwd.service and systemd-cryptsetup@.service under the drop-ins
// of builtin:desktop, with and without the grants.
func TestLongUnits(t *testing.T) {
	t.Parallel()
	vm := bootWifi(t, Options{Systemd: true})
	vm.Output(t, "install", program(t), "/usr/local/bin/afalg-policy")
	vm.Output(t, "sh", "-ec", "modprobe -a loop dm_crypt\n"+fmt.Sprintf(makeVolume, "serpent-xts-plain64 -s 512"))
	vm.WriteFile(t, "/etc/systemd/system/systemd-cryptsetup@disk.service", []byte(diskUnit), 0o644)
	vm.Output(t, "systemctl", "start", "systemd-journald", "dbus")
	installDesktop(t, vm)
	t.Run("closed", func(t *testing.T) {
		if got, log := startIWD(t, vm, "psk"); got != "refused" {
			t.Errorf("iwd: %s\n%s", got, log)
		}
		if r := vm.Run(t, "systemctl", "start", "systemd-cryptsetup@disk"); r.Exit == 0 {
			t.Error("the disk was opened")
		}
		if log := vm.Output(t, "journalctl", "-u", "systemd-cryptsetup@disk"); !strings.Contains(log, "Operation not supported") {
			t.Error(log)
		}
	})
	installDesktop(t, vm, "iwd", "systemd-cryptsetup")
	t.Run("granted", func(t *testing.T) {
		joins(t, func() (string, string) { return startIWD(t, vm, "psk") })
		if r := vm.Run(t, "systemctl", "start", "systemd-cryptsetup@disk"); r.Exit != 0 {
			t.Errorf("the disk: %s", vm.Run(t, "journalctl", "-u", "systemd-cryptsetup@disk").Stdout)
		}
		vm.Output(t, "dmsetup", "status", "disk")
	})
	t.Run("broker", func(t *testing.T) {
		page, err := os.ReadFile("../../docs/will-it-break.md")
		if err != nil {
			t.Fatal(err)
		}
		conf := strings.ReplaceAll(brokerUnit.FindStringSubmatch(string(page))[1], "\n  ", "\n")
		vm.WriteFile(t, "/etc/systemd/system/iwd.service.d/broker.conf", []byte(conf), 0o644)
		vm.Output(t, "systemctl", "daemon-reload")
		for _, network := range []string{"psk", "gcm"} {
			joins(t, func() (string, string) { return startIWD(t, vm, network) })
		}
		denied := vm.Output(t, "journalctl", "-u", "iwd")
		if !strings.Contains(denied, `"algorithm":"hash:hmac(md4)","verdict":"denied"`) {
			t.Errorf("no algorithm was denied, so none was decided on:\n%s", denied)
		}
	})
	t.Run("kernel half", func(t *testing.T) { testUnitsInKernel(t, vm) })
}

// testUnitsInKernel runs the units with no filter and no broker, under the
// kernel half.
func testUnitsInKernel(t *testing.T, vm *VM) {
	const disk = "systemd-cryptsetup@disk"
	vm.Output(t, "sh", "-c", `find /etc/systemd/system -name zz-afalg-policy.conf -delete
rm -r /etc/systemd/system/iwd.service.d; systemctl daemon-reload; systemctl stop `+disk)
	loadInKernel(t, vm, "builtin:desktop")
	joins(t, func() (string, string) { return startIWD(t, vm, "psk") })
	if r := vm.Run(t, "systemctl", "start", disk); r.Exit != 0 {
		t.Errorf("the disk: %s", vm.Run(t, "journalctl", "-u", disk).Stdout)
	}
	vm.Output(t, "systemctl", "stop", disk)
	loadInKernel(t, vm, "builtin:baseline")
	if got, log := startIWD(t, vm, "psk"); got != "refused" {
		t.Errorf("closed: iwd: %s\n%s", got, log)
	}
	if r := vm.Run(t, "systemctl", "start", disk); r.Exit == 0 {
		t.Error("closed: the disk was opened")
	}
	vm.Output(t, program(t), "lsm", "unload")
}

// loadInKernel puts a policy in force for all of the machine.
func loadInKernel(t *testing.T, vm *VM, policy string) {
	t.Helper()
	r := vm.Command(t, Command{Args: []string{program(t), "lsm", "load", policy}, Timeout: 10 * time.Minute})
	if r.Exit != 0 {
		t.Fatalf("load %s: exit status %d\n%s", policy, r.Exit, both(r))
	}
	t.Logf("%v\n%s", r.Took.Round(time.Millisecond), r.Stderr)
}

// installDesktop installs the drop-ins of builtin:desktop, as
// docs/targets/systemd.md says. A unit without a grant is to lose AF_ALG.
func installDesktop(t *testing.T, vm *VM, grants ...string) {
	t.Helper()
	show := vm.Output(t, "systemctl", "show", "--property=Id,RestrictAddressFamilies",
		"*.service", "iwd.service", "bluetooth.service", "udisks2.service", "systemd-cryptsetup@afalg-policy.service")
	dir := t.TempDir()
	facts, out := filepath.Join(dir, "units.txt"), filepath.Join(dir, "out")
	write(t, facts, show+"\n", 0o600)
	args := []string{"systemd", "builtin:desktop", "--show", facts, "-o", out}
	for _, rule := range []string{"bluetoothd", "iwd", "systemd-cryptsetup", "udisksd"} {
		args = append(args, "--accept", rule)
	}
	for _, rule := range grants {
		args = append(args, "--grant", rule)
	}
	generate(t, args...)
	vm.Output(t, "sh", "-c", "find /etc/systemd/system -name zz-afalg-policy.conf -delete")
	files, err := filepath.Glob(filepath.Join(out, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d drop-ins, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(out, f)
		vm.WriteFile(t, filepath.Join("/etc/systemd/system", name), data, 0o644)
	}
	vm.Output(t, "systemctl", "daemon-reload")
}

// startIWD returns the result of iwd.service in a network.
func startIWD(t *testing.T, vm *VM, network string) (result, log string) {
	t.Helper()
	const script = `bash $1 serve $2
systemctl --no-block restart iwd
bash $1 await
journalctl -q -u iwd -n 30 >&2
systemctl stop iwd
systemctl reset-failed iwd 2>/dev/null
kill $(cat /run/hostapd.pid)
while pidof hostapd >/dev/null; do sleep .2; done`
	r := vm.Command(t, Command{Args: []string{"sh", "-c", script, "sh", wifiScript, network}, Timeout: 10 * time.Minute})
	return strings.TrimSpace(string(r.Stdout)), string(r.Stderr)
}
