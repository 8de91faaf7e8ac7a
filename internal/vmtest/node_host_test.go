//go:build vm

package vmtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/node"
	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

const (
	// podRoot is the image: the program, and the mounted policy.
	podRoot   = "/pod"
	podBinary = "/afalg-policy"
	// picky is a runtime that does not live with our configuration.
	picky = "/etc/systemd/system/containerd.service.d/picky.conf"
)

// TestBoxNodeHost does what the chart does in mode host: a privileged container of
// the node's own containerd, with nothing in it but the program, installs on the
// node, has systemd restart that containerd under itself, and takes it all back.
func TestBoxNodeHost(t *testing.T) {
	t.Parallel()
	vm := box.Start(t)
	setUp(t, vm, boxContainers)
	vm.Output(t, "install", "-D", program(t), podRoot+podBinary)
	vm.WriteFile(t, podRoot+"/etc/afalg-policy/policy.yaml", []byte("version: 1\nname: cluster\ncontainers:\n  unconfined: harden\n"), 0o644)
	vm.Output(t, "mkdir", "-p", podRoot+"/host", podRoot+"/proc", podRoot+"/dev", podRoot+"/sys", podRoot+"/run")
	vm.Output(t, "systemctl", "start", "containerd")
	n := nodeTest{vm}
	before := n.snapshot(t)

	n.closed(t, "before", false)
	said, ended := n.pod(t, "install", "containerd")
	if !ended || !strings.Contains(said, "containerd: in force") {
		t.Fatalf("install: ended %v\n%s", ended, said)
	}
	n.closed(t, "installed, with no pod", true)
	if said, ended := n.pod(t, "install", "containerd"); !ended || !strings.Contains(said, "unchanged, and in force") || strings.Contains(said, "restart") {
		t.Errorf("install again: %v\n%s", ended, said)
	}
	if said, ended := n.pod(t, "remove"); !ended || !strings.Contains(said, "containerd: taken back") {
		t.Errorf("remove: %v\n%s", ended, said)
	}
	n.restored(t, "removed", before)
	if said, ended := n.pod(t, "remove"); !ended || said != "" {
		t.Errorf("remove again: %v\n%s", ended, said)
	}

	// It was interrupted between its files and the restart.
	vm.Output(t, "cp", "-rT", podRoot+"/etc/afalg-policy", node.HostDir)
	vm.Output(t, "cp", podRoot+podBinary, node.HostProgram)
	vm.Output(t, node.HostProgram, "install", "containerd", "--policy", node.HostPolicy, "--program", node.HostProgram)
	if said, ended := n.pod(t, "install", "containerd"); !ended || !strings.Contains(said, "run on the host: systemctl restart containerd") || !strings.Contains(said, "in force") {
		t.Errorf("interrupted: %v\n%s", ended, said)
	}
	n.pod(t, "remove")
	n.restored(t, "removed after an interruption", before)

	vm.WriteFile(t, picky, []byte("[Service]\nExecStartPre=/bin/sh -c '! grep -q afalg-policy /etc/containerd/config.toml'\n"), 0o644)
	said, ended = n.pod(t, "install", "containerd")
	if ended || !strings.Contains(said, "it was taken back, and the node is as it was; this waits to be ended") {
		t.Errorf("a runtime that does not start: ended %v\n%s", ended, said)
	}
	n.end(t)
	vm.Output(t, "rm", picky)
	vm.Output(t, "systemctl", "daemon-reload")
	n.restored(t, "taken back", before)

	vm.WriteFile(t, agentPolicy, []byte("version: 1\nname: mine\ncontainers:\n  unconfined: harden\n"), 0o644)
	vm.Output(t, installed, "install", "containerd", "--policy", agentPolicy)
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, "systemctl", "restart", "containerd")
	if said, ended := n.pod(t, "install", "containerd"); !ended || !strings.Contains(said, "was installed on this node by hand, with "+installed) {
		t.Errorf("installed by hand: %v\n%s", ended, said)
	}
	if said, ended := n.pod(t, "remove"); !ended || !strings.Contains(said, "installed by hand with "+installed+", and stays") {
		t.Errorf("installed by hand: %v\n%s", ended, said)
	}
	n.closed(t, "installed by hand", true)
}

type nodeTest struct{ vm *VM }

// pod runs "node ARGS --root /host" as the chart does, and returns what it said and
// whether it ended within its time. Its parent, containerd, restarts meanwhile.
func (n nodeTest) pod(t *testing.T, args ...string) (said string, ended bool) {
	t.Helper()
	n.end(t)
	n.vm.Output(t, append([]string{"ctr", "run", "-d", "--cpu-shares=0", "--privileged", "--with-ns=pid:/proc/1/ns/pid", "--log-uri=file:///run/pod.log",
		"--mount=type=bind,src=/,dst=/host,options=rbind:rslave:rw", "--rootfs", podRoot, "pod", podBinary, "node"}, append(args, "--root=/host")...)...)
	const wait = `i=0; while ! ctr task ls | grep -q '^pod .*STOPPED'; do
i=$((i+1)); [ $i -lt 600 ] || exit 1
if grep -q 'waits to be ended' /run/pod.log; then exit 1; fi
sleep 0.2; done`
	r := n.vm.Command(t, Command{Args: []string{"sh", "-c", wait}, Timeout: 5 * time.Minute})
	return string(n.vm.ReadFile(t, "/run/pod.log")), r.Exit == 0
}

// end removes the pod and its log.
func (n nodeTest) end(t *testing.T) {
	t.Helper()
	n.vm.Output(t, "sh", "-c", "ctr task rm -f pod; ctr container rm pod; rm -f /run/pod.log; true")
}

// closed asks in an ordinary container, which has no profile of its own. This
// kernel has no AF_ALG: what no filter refuses is absent.
func (n nodeTest) closed(t *testing.T, when string, want bool) {
	t.Helper()
	verdict := map[bool]string{true: "closed", false: "absent"}[want]
	r := n.vm.Run(t, "ctr", "run", "--rm", "--cpu-shares=0", "--rootfs", podRoot, "asked", podBinary, "probe", "--json", "--route", "socket")
	if r.Exit != 0 || !strings.Contains(string(r.Stdout), fmt.Sprintf("%q: %q", "verdict", verdict)) {
		t.Errorf("%s: exit status %d, wanted %s\n%s%s", when, r.Exit, verdict, r.Stdout, r.Stderr)
	}
}

// snapshot leaves out what containerd makes for itself when it starts.
func (n nodeTest) snapshot(t *testing.T) []string {
	t.Helper()
	lines := strings.Split((&platformTest{vm: n.vm}).snapshot(t)+n.vm.Output(t, "find", "/opt", "-printf", `%p %m %U:%G %y\n`), "\n")
	return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "etc/cni/") })
}

// restored compares the node with what it was, byte for byte.
func (n nodeTest) restored(t *testing.T, when string, before []string) {
	t.Helper()
	n.end(t)
	if d := cmp.Diff(before, n.snapshot(t)); d != "" {
		t.Errorf("%s: the node as it was (-) and is (+):\n%s", when, d)
	}
	n.vm.Output(t, "systemctl", "is-active", "containerd")
	n.closed(t, when, false)
}
