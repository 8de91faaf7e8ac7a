//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// packaged is where packages have the program.
const packaged = "/usr/bin/afalg-policy"

// Two releases, of the program that make build made.
const oldRelease, newRelease = "1.0.0", "1.0.1"

// releases makes both, once for all tests.
var releases = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "releases")
	if err != nil {
		return "", err
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	maker := filepath.Join(dir, "packaging")
	if out, err := exec.Command("go", "-C", tree+"/packaging", "build", "-o", maker, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build packaging: %w\n%s", err, out)
	}
	for i, version := range []string{oldRelease, newRelease} {
		make := exec.Command(maker, "-tree", tree, "-version", version, "-date", "1767225600", "-arch", "amd64",
			"-program", tree+"/bin/afalg-policy", fmt.Sprintf("-keep-manual=%t", i > 0), "-only", "packages", "-o", filepath.Join(dir, version))
		if out, err := make.CombinedOutput(); err != nil {
			return "", fmt.Errorf("make release %s: %w\n%s", version, err, out)
		}
	}
	return dir, nil
})

// packageOf returns the package of a release for this machine.
func packageOf(t *testing.T, version, pattern string) string {
	t.Helper()
	program(t) // it must be built
	dir, err := releases()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, version, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s of %s: %v %v", pattern, version, found, err)
	}
	return found[0]
}

// TestBoxPackages installs, upgrades and removes the package as apt does, beside
// platforms that use it.
func TestBoxPackages(t *testing.T) {
	debs := map[string]string{}
	for _, version := range []string{oldRelease, newRelease} {
		debs[version] = packageOf(t, version, "*.deb")
	}
	t.Parallel()
	vm := box.Start(t)
	setUp(t, vm, boxContainers)
	vm.Output(t, "rm", installed)
	vm.WriteFile(t, "/etc/docker/daemon.json", []byte("{\n  \"debug\": false\n}\n"), 0o644)
	vm.WriteFile(t, "/etc/systemd/system/"+agentUnit+".service.d/log.conf", []byte("[Service]\nStandardError=append:"+agentLog+"\n"), 0o644)
	h := packagedHost{t, vm}
	h.empty()

	before := h.state()
	h.apt("install", debs[oldRelease])
	t.Run("installed", h.testInstalled)
	h.apt("purge", "afalg-policy")
	if d := cmp.Diff(before, h.state()); d != "" {
		t.Errorf("install and purge alone leave something, -before +after:\n%s", d)
	}

	h.apt("install", debs[oldRelease])
	vm.WriteFile(t, agentPolicy, systemdPolicy(t), 0o644)
	for _, platform := range []string{"agent", "podman", "docker"} {
		vm.Output(t, packaged, "install", platform)
	}
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, "systemctl", "start", agentUnit+".socket", agentUnit+".service")
	root := vm.HostRoot(t)
	c := startAnswering(t, vm)
	c.expect("before the upgrade", "old")

	t.Run("upgrade", func(t *testing.T) {
		pid := h.agentPID()
		h.apt("install", debs[newRelease])
		if now := h.agentPID(); now == pid || now == "0" {
			t.Errorf("the agent's process was %s and is %s: it is not the new program", pid, now)
		}
		c.expect("after the upgrade", "old")
		if got := vm.Output(t, "dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "afalg-policy"); got != "ii "+newRelease+"-1" {
			t.Errorf("the package is %q", got)
		}
		if got := string(vm.ReadFile(t, agentPolicy)); got != string(systemdPolicy(t)) {
			t.Errorf("the policy of the host is now:\n%s", got)
		}
	})

	t.Run("refused removal", func(t *testing.T) {
		for _, verb := range []string{"remove", "purge"} {
			r := h.run("apt-get", verb, "-y", "-o", "Dpkg::Use-Pty=0", "afalg-policy")
			want := `afalg-policy is not removed: this host's containers or services start by it,
and would not start without it. Take that back first:
  afalg-policy uninstall docker
  afalg-policy uninstall podman
  afalg-policy uninstall agent
Each command prints what to restart. Then remove the package again.
`
			if r.Exit == 0 || !strings.Contains(string(r.Stdout)+string(r.Stderr), want) {
				t.Errorf("apt-get %s: exit status %d\n%s%s", verb, r.Exit, r.Stdout, r.Stderr)
			}
		}
		c.expect("after a refused removal", "old")
		if text, ok := h.contained(root); !ok {
			t.Errorf("no container starts after a refused removal: %s", text)
		}
		// What the refusal prevents.
		vm.Output(t, "mv", packaged, packaged+".away")
		if text, ok := h.contained(root); ok {
			t.Errorf("a container starts without the program: %s", text)
		}
		vm.Output(t, "mv", packaged+".away", packaged)
	})

	t.Run("removal", func(t *testing.T) {
		for _, platform := range []string{"docker", "podman", "agent"} {
			vm.Output(t, packaged, "uninstall", platform)
		}
		vm.Output(t, "systemctl", "stop", agentUnit+".service", agentUnit+".socket")
		vm.Output(t, "systemctl", "daemon-reload")
		h.testRotation(t)
		h.apt("remove", "afalg-policy")
		if r := vm.Run(t, "test", "-e", packaged); r.Exit == 0 {
			t.Errorf("%s is still there", packaged)
		}
		if got := string(vm.ReadFile(t, agentPolicy)); got != string(systemdPolicy(t)) {
			t.Errorf("removal changed the policy of the host:\n%s", got)
		}
		if text, ok := h.contained(root); !ok {
			t.Errorf("no container starts after removal: %s", text)
		}
		h.apt("purge", "afalg-policy")
		if d := cmp.Diff(before, h.state()); d != "" {
			t.Errorf("the host, -before +after:\n%s", d)
		}
	})
}

// packagedHost is a machine of which dpkg takes care.
type packagedHost struct {
	t  *testing.T
	vm *VM
}

// empty gives dpkg and apt databases of their own, for somebody may be installing
// packages on the machine that the box shows; and takes away what of ours is there.
func (h packagedHost) empty() {
	h.t.Helper()
	for _, dir := range []string{"/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt"} {
		h.vm.Output(h.t, "mount", "-t", "tmpfs", "tmpfs", dir)
	}
	h.vm.Output(h.t, "sh", "-ec", `cd /var/lib/dpkg; mkdir info updates triggers parts alternatives; touch status available
rm -rf /etc/afalg-policy /var/lib/afalg-policy /var/cache/afalg-policy /var/log/afalg-policy`)
}

func (h packagedHost) run(args ...string) Result {
	return h.vm.Command(h.t, Command{Args: append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}, args...), Timeout: 4 * time.Minute})
}

// apt does something to a package, without any repository.
func (h packagedHost) apt(verb, what string) {
	h.t.Helper()
	r := h.run("apt-get", verb, "-y", "-o", "Dpkg::Use-Pty=0", what)
	h.t.Logf("apt-get %s %s:\n%s%s", verb, path.Base(what), r.Stdout, r.Stderr)
	if r.Exit != 0 {
		h.t.Fatalf("apt-get %s %s: exit status %d", verb, what, r.Exit)
	}
}

func (h packagedHost) agentPID() string {
	h.t.Helper()
	return h.vm.Output(h.t, "systemctl", "show", "--property=MainPID", "--value", agentUnit)
}

// contained starts a container of podman.
func (h packagedHost) contained(root string) (string, bool) {
	r := h.vm.Command(h.t, Command{Args: []string{"podman", "run", "--rm", "--network=none", "--rootfs", root, "echo", "contained"}, Timeout: 4 * time.Minute})
	return string(r.Stdout) + string(r.Stderr), string(r.Stdout) == "contained\n"
}

// state has the contents of /etc, and each other file with our name.
func (h packagedHost) state() map[string]string {
	h.t.Helper()
	text := h.vm.Output(h.t, "sh", "-c", `set -e
find /etc -xdev -type f ! -name '*.cache' ! -name '*~' ! -name '*-' -exec sha256sum {} + | sed 's/^\([^ ]*\)  \(.*\)/\2\t\1/'
find /etc -xdev -type l -printf '%p\tto %l\n'
find /etc -xdev -type d -printf '%p/\t%m %u\n'
find /usr /opt /var/lib /var/cache /var/log -name '*afalg*' -printf '%p\t%y\n'
ls -d /run/afalg* 2>/dev/null || true`)
	state := map[string]string{}
	for line := range strings.Lines(text) {
		name, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		state[name] = what
	}
	return state
}

// testInstalled looks at a host on which the package was installed, and nothing else.
func (h packagedHost) testInstalled(t *testing.T) {
	vm := h.vm
	if got := vm.Output(t, packaged, "check", agentPolicy); !strings.Contains(got, "valid") {
		t.Errorf("check: %s", got)
	}
	for what, want := range map[string]string{
		"cat /etc/docker/daemon.json":                                    "{\n  \"debug\": false\n}",
		"ls /etc/systemd/system | grep afalg-policy | grep -v service.d": "",
		"systemctl is-active afalg-policy-agent.service afalg-policy-agent.socket afalg-policy-lsm.service afalg-policy-lsm-check.timer":                                    "inactive\ninactive\ninactive\ninactive",
		"systemctl is-enabled afalg-policy-agent.socket afalg-policy-lsm-check.timer":                                                                                       "disabled\ndisabled",
		"systemd-analyze verify --man=no " + agentUnit + ".service " + agentUnit + ".socket afalg-policy-lsm.service afalg-policy-lsm-check.timer 2>&1 | grep afalg-policy": "",
		"zcat /usr/share/man/man1/afalg-policy-generate-seccomp.1.gz | grep -c '^.SH NAME'":                                                                                 "1",
		"stat -c '%U %a' " + packaged:                                  "root 755",
		"ls /var/lib/afalg-policy /var/cache/afalg-policy 2>/dev/null": "",
	} {
		if got := strings.TrimSpace(string(vm.Run(t, "sh", "-c", what).Stdout)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}

// testRotation rotates a log that a program has open, as the agent has its own.
func (h packagedHost) testRotation(t *testing.T) {
	const log = "/var/log/afalg-policy/decisions.json"
	got := h.vm.Output(t, "sh", "-ec", `umask 027; mkdir -p ${1%/*}
exec 3>>"$1"
echo first >&3
logrotate --force --state /run/rotated /etc/logrotate.d/afalg-policy
echo second >&3
grep -H . "$1" "$1.1"
rm /run/rotated`, "sh", log)
	if want := log + ":second\n" + log + ".1:first"; got != want {
		t.Errorf("after a rotation:\n%s\nwant:\n%s", got, want)
	}
}
