//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// TestBoxPodProfiles asks status about the profiles that pods name, and has apply make
// them anew.
func TestBoxPodProfiles(t *testing.T) {
	t.Parallel()
	vm := box.Start(t)
	const (
		policy, changed, open = "/etc/afalg-policy/policy.yaml", "/srv/changed.yaml", "/srv/open.yaml"
		rxrpc                 = "socket(family=AF_RXRPC)"
		profile               = kube.SeccompRoot + "/" + kube.DefaultProfile
	)
	vm.Output(t, "install", "-D", program(t), installed)
	vm.Output(t, "install", "-m", "755", "/bin/true", "/usr/bin/kubelet") // a node has one
	vm.WriteFile(t, policy, []byte("version: 1\nname: node\n"), 0o644)
	vm.WriteFile(t, changed, []byte("version: 1\nname: node\ndeny:\n  families: [AF_RXRPC]\n"), 0o644)
	vm.WriteFile(t, open, []byte("version: 1\nname: [\n"), 0o644)
	ask := func(want int, args ...string) string {
		t.Helper()
		r := vm.Run(t, append([]string{installed}, args...)...)
		if r.Exit != want {
			t.Errorf("%q: exit status %d, want %d\n%s%s", args, r.Exit, want, r.Stdout, r.Stderr)
		}
		return string(r.Stdout) + string(r.Stderr)
	}
	status := func(when string, want int, says string) {
		t.Helper()
		if got := ask(want, "status", "kubernetes"); !strings.Contains(got, says) {
			t.Errorf("%s: status does not say %q:\n%s", when, says, got)
		}
	}

	ask(0, "install", "kubernetes", "--policy", policy)
	status("installed", 0, "yes")
	ask(1, "verify", profile, "--ask", rxrpc)
	before := vm.Output(t, "cat", profile)

	// The file alone is another one: nobody has made its profiles.
	vm.Output(t, "cp", policy, "/srv/old.yaml")
	vm.Output(t, "cp", changed, policy)
	status("with another policy", 1, "the policy makes other profiles now")
	vm.Output(t, "cp", "/srv/old.yaml", policy)
	status("with the first one again", 0, "yes")

	if got := ask(0, "apply", changed, "--dry-run"); strings.Contains(got, "made anew") || vm.Output(t, "cat", profile) != before {
		t.Errorf("a dry run has changed something:\n%s", got)
	}
	if got := ask(0, "apply", changed); !strings.Contains(got, "the profiles that pods name were made anew") {
		t.Errorf("apply says nothing about the profiles:\n%s", got)
	}
	status("applied", 0, "yes")
	ask(0, "verify", profile, "--ask", rxrpc)
	after := vm.Output(t, "cat", profile)
	if after == before {
		t.Error("the profile is as before")
	}

	ask(1, "apply", open)
	status("after an invalid policy", 0, "yes")
	if vm.Output(t, "cat", profile) != after {
		t.Error("an invalid policy has changed the profile")
	}

	vm.Output(t, "cp", profile, "/srv/ours.json")
	vm.WriteFile(t, profile, []byte(before), 0o644)
	status("edited by hand", 1, "changed")
	ask(1, "install", "kubernetes", "--policy", policy)
	ask(1, "uninstall", "kubernetes")
	vm.Output(t, "cp", "/srv/ours.json", profile)
	status("with the edit taken back", 0, "yes")
	ask(0, "uninstall", "kubernetes")
	status("uninstalled", 1, "no")
	if left := vm.Output(t, "sh", "-c", "find /var/lib/kubelet 2>/dev/null || true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}
