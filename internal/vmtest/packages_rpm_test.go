//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// rpmRoot has a shell for the scripts of packages, and nothing else.
const rpmRoot = "/srv/rpm"

// TestBoxPackagesRPM installs, upgrades and erases the rpm in an empty root.
func TestBoxPackagesRPM(t *testing.T) {
	older, newer := packageOf(t, oldRelease, "*.rpm"), packageOf(t, newRelease, "*.rpm")
	t.Parallel()
	vm := box.Start(t)
	vm.Output(t, "sh", "-ec", "mkdir -p $0/bin $0/tmp; cp /bin/busybox $0/bin; for a in sh cat rm; do ln -s busybox $0/bin/$a; done", rpmRoot)
	rpm := func(args ...string) Result {
		return vm.Run(t, append([]string{"rpm", "--root", rpmRoot, "--dbpath", "/var/lib/rpm"}, args...)...)
	}
	done := func(args ...string) {
		t.Helper()
		if r := rpm(args...); r.Exit != 0 || len(r.Stdout)+len(r.Stderr) > 0 {
			t.Fatalf("rpm %v: exit status %d\n%s%s", args, r.Exit, r.Stdout, r.Stderr)
		}
	}
	// Directories of others, as /usr/share, are a distribution's, which this root lacks.
	files := func() []string {
		return strings.Split(vm.Output(t, "find", rpmRoot, "-path", rpmRoot+"/var/lib/rpm", "-prune", "-o", "(", "!", "-type", "d", "-o", "-name", "*afalg*", ")", "-printf", "%p %y %m %u:%g %l\n"), "\n")
	}
	done("--initdb")
	before := files()

	done("-i", "--force-debian", older)
	done("-V", "afalg-policy")
	if got := vm.Output(t, "chroot", rpmRoot, packaged, "check", agentPolicy); !strings.Contains(got, "valid") {
		t.Errorf("check: %s", got)
	}
	shipped := vm.ReadFile(t, rpmRoot+agentPolicy)
	changed := []byte("version: 1\nname: changed\n")
	vm.WriteFile(t, rpmRoot+agentPolicy, changed, 0o644)
	done("-U", "--force-debian", newer)
	if got := string(vm.ReadFile(t, rpmRoot+agentPolicy)); got != string(changed) {
		t.Errorf("the policy of the host is now:\n%s", got)
	}
	if got := strings.TrimSpace(string(rpm("-q", "afalg-policy").Stdout)); got != "afalg-policy-"+newRelease+"-1.x86_64" {
		t.Errorf("installed is %s", got)
	}
	if got := string(rpm("-V", "afalg-policy").Stdout); !strings.Contains(got, "c "+agentPolicy+"\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("verification finds:\n%s", got)
	}

	vm.WriteFile(t, rpmRoot+"/var/lib/afalg-policy/installed/docker.json", []byte("{}\n"), 0o600)
	if r := rpm("-e", "afalg-policy"); r.Exit == 0 || !strings.Contains(string(r.Stderr), "Take that back first:\n  afalg-policy uninstall docker\n") {
		t.Errorf("rpm -e beside a platform that uses the program: exit status %d\n%s", r.Exit, r.Stderr)
	}
	vm.Output(t, "test", "-x", rpmRoot+packaged)
	vm.Output(t, "rm", rpmRoot+"/var/lib/afalg-policy/installed/docker.json")

	// Put back, it is the package's; a changed one would stay as policy.yaml.rpmsave.
	vm.WriteFile(t, rpmRoot+agentPolicy, shipped, 0o644)
	done("-e", "--force-debian", "afalg-policy")
	if d := cmp.Diff(before, files()); d != "" {
		t.Errorf("the root, -before +after:\n%s", d)
	}
}
