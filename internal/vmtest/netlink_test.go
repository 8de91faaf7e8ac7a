//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// netlinkPolicy grants kcapi-dgst its algorithm in two units.
const netlinkPolicy = `version: 1
name: netlink
allow:
  - rule: digest
    binaries:
      - path: /usr/bin/kcapi-dgst
    units: [without.service, with.service]
    algorithms:
      hash: ["hmac(sha512)"]
`

// testNetlink grants AF_ALG to units with a narrow list of their own: a program
// of libkcapi asks over AF_NETLINK after the bind, and a unit without that in its
// list gets nothing of what it was granted. The output says so.
func testNetlink(t *testing.T, vm *VM) {
	lists := map[string]string{"without": "AF_UNIX", "with": "AF_NETLINK AF_UNIX"}
	dir := t.TempDir()
	policy, facts, out := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "show"), filepath.Join(dir, "out")
	write(t, policy, netlinkPolicy, 0o600)
	for name, list := range lists {
		vm.WriteFile(t, "/etc/vmtest/"+name, fmt.Appendf(nil, "%s >/run/%s.out 2>&1\ntrue\n", digest, name), 0o644)
		vm.WriteFile(t, "/etc/systemd/system/"+name+".service", fmt.Appendf(nil, unit, "/etc/vmtest/"+name, "RestrictAddressFamilies="+list), 0o644)
	}
	write(t, facts, vm.Output(t, "systemctl", "show", "--property=Id,RestrictAddressFamilies", "without.service", "with.service"), 0o600)
	generator := exec.Command(program(t), "generate", "systemd", policy, "--show", facts, "--unit", "without.service", "--unit", "with.service",
		"--grant", "digest", "--accept", "digest", "-o", out)
	var told bytes.Buffer
	generator.Stderr = &told
	if err := generator.Run(); err != nil {
		t.Fatalf("%v\n%s", err, told.String())
	}
	const gap = "its own list has no AF_NETLINK, which programs of libkcapi need beside AF_ALG"
	if text := told.String(); strings.Count(text, gap) != 1 || !strings.Contains(text, "without.service") {
		t.Errorf("generate says\n%s", text)
	}
	for name := range lists {
		dropIn := name + ".service.d/zz-afalg-policy.conf"
		text, err := os.ReadFile(filepath.Join(out, dropIn))
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, "/etc/systemd/system/"+dropIn, text, 0o644)
	}
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, "systemctl", "start", "without.service", "with.service")
	said := func(name string) string { return strings.TrimSpace(string(vm.ReadFile(t, "/run/"+name+".out"))) }
	if got := said("with"); got != wantDigest(t, vm) {
		t.Errorf("with AF_NETLINK: %s", got)
	}
	if got := said("without"); !strings.Contains(got, "NETLINK_CRYPTO: cannot obtain cipher information for hmac(sha512)") {
		t.Errorf("without AF_NETLINK: %s", got)
	}
}
