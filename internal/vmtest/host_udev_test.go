//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/gen/host"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// testUdevRule sets a sysctl when its module is loaded, long after sysctl.d was read.
// No kernel here has crypto.af_alg_restrict, so that TIPC stands in for AF_ALG.
func testUdevRule(t *testing.T, vm *VM) {
	s := host.Settings{Sysctls: []host.Sysctl{{Key: "net.tipc.named_timeout", Value: "1234", Module: "tipc", Optional: true}}}
	files, err := host.Forms()[0].Render(host.Input{Plan: &plan.Plan{}, Settings: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		vm.WriteFile(t, "/"+f.Path, f.Data, 0o644)
	}
	vm.Output(t, "systemctl", "start", "systemd-udevd.service")
	const value = "cat /proc/sys/net/tipc/named_timeout 2>/dev/null || echo none"
	if r := vm.Run(t, "/usr/lib/systemd/systemd-sysctl"); r.Exit != 0 {
		t.Errorf("sysctl.d before the module is there: exit status %d\n%s", r.Exit, r.Stderr)
	}
	if got := vm.Output(t, "sh", "-c", value); got != "none" {
		t.Fatalf("before: %s", got)
	}
	vm.Output(t, "sh", "-c", "modprobe tipc && udevadm settle")
	if got := vm.Output(t, "sh", "-c", value); strings.TrimSpace(got) != "1234" {
		t.Errorf("after the load: %s", got)
	}
	vm.Output(t, "sh", "-c", "modprobe -r tipc; systemctl stop systemd-udevd.service; rm /etc/sysctl.d/zz-afalg-policy.conf /etc/udev/rules.d/zz-afalg-policy.rules")
}
