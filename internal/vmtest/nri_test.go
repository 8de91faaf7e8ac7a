//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// nriConfig is containerd's: with the plugin required, or not.
func nriConfig(required bool, timeout time.Duration) []byte {
	config := fmt.Sprintf(`version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.nri.v1.nri']
  plugin_request_timeout = '%v'
`, timeout)
	if required {
		config += `[plugins.'io.containerd.nri.v1.nri'.default_validator]
  enable = true
  required_plugins = ['afalg-policy']
`
	}
	return []byte(config)
}

// nriAgent has the agent's unit be a plugin as well.
const nriAgent = `[Service]
ExecStart=
ExecStart=` + installed + ` agent ` + agentPolicy + ` --nri --decision-log ` + containerLog + `
`

// nriTest is a machine whose containerd asks the agent about pods.
type nriTest struct {
	*platformTest
	plugged bool // the agent is a plugin
}

// weightless is a runc that sets no shares of time: CRI asks for them for each pod, and
// a box has no controllers.
const weightless = `#!/usr/bin/python3
import json, os, sys
if "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    config = json.load(open(path))
    config["linux"].pop("resources", None)
    json.dump(config, open(path, "w"))
os.execv("/usr/sbin/runc.real", sys.argv)
`

func (n *nriTest) configure(t *testing.T, required bool, timeout time.Duration) {
	t.Helper()
	n.vm.WriteFile(t, containerdConfig, nriConfig(required, timeout), 0o644)
	restart := func() { n.vm.Output(t, "systemctl", "restart", "containerd") }
	if n.plugged {
		n.connecting(t, restart)
	} else {
		restart()
	}
}

// connecting does something after which containerd has the plugin anew, and waits for
// that.
func (n *nriTest) connecting(t *testing.T, do func()) {
	t.Helper()
	const count = `grep -c '90-afalg-policy.* connected and synchronized' /run/containerd.log`
	before := strings.TrimSpace(string(n.vm.Run(t, "sh", "-c", count).Stdout))
	do()
	r := n.vm.Command(t, Command{Args: []string{"sh", "-c", "until [ $(" + count + ") -gt " + before + " ]; do sleep .1; done"}, Timeout: 4 * time.Minute})
	if r.Exit != 0 {
		t.Fatalf("the agent is not connected: %s", n.vm.Run(t, "tail", unitLog, "/run/containerd.log").Stdout)
	}
}

func (n *nriTest) plugin(t *testing.T, unconfined string) {
	t.Helper()
	n.vm.WriteFile(t, agentPolicy, platformPolicy(t, n.digests, unconfined), 0o644)
	n.vm.WriteFile(t, "/etc/systemd/system/"+agentUnit+".service.d/nri.conf", []byte(nriAgent), 0o644)
	n.vm.Output(t, "systemctl", "daemon-reload")
	n.plugged = true
	n.connecting(t, func() { n.vm.Output(t, "systemctl", "restart", agentUnit) })
}

// starts is what a container says of its filters.
func (n *nriTest) starts(t *testing.T, c workload) Result {
	t.Helper()
	c.args = []string{"sh", "-c", "grep ^Seccomp: /proc/self/status"}
	r := n.try(t, n.vm, c)
	n.vm.Run(t, append(slices.Clone(n.remove), c.name)...)
	return r
}

const (
	noFilter  = "Seccomp:\t0\n"
	hasFilter = "Seccomp:\t2\n"
)

func (n *nriTest) starting(t *testing.T, c workload, want string) {
	t.Helper()
	if r := n.starts(t, c); string(r.Stdout) != want || r.Exit != 0 {
		t.Errorf("%s: exit status %d, and it says %q\n%s", c.name, r.Exit, r.Stdout, r.Stderr)
	}
}

func (n *nriTest) notStarting(t *testing.T, c workload, why string) {
	t.Helper()
	if r := n.starts(t, c); r.Exit == 0 || len(r.Stdout) > 0 || !strings.Contains(string(r.Stderr), why) {
		t.Errorf("%s: exit status %d, and it says %q\n%s", c.name, r.Exit, r.Stdout, r.Stderr)
	}
}

var unconfinedPod = workload{name: "free", options: []string{"--unconfined"}}

// TestBoxNRI has containerd 2.4 ask the agent about real pods, and takes the agent away
// in every way.
func TestBoxNRI(t *testing.T) {
	archive, digests := imageArchive(t)
	put := podsOn2(t)
	t.Parallel()
	vm := box.Start(t)
	setUp(t, vm, boxContainers)
	put(vm)
	n := &nriTest{platformTest: newPlatformTest(t, pods(engine{name: "NRI"}), vm, platformFiles{digests: digests})}
	vm.Output(t, "mv", "/usr/sbin/runc", "/usr/sbin/runc.real")
	vm.WriteFile(t, "/usr/sbin/runc", []byte(weightless), 0o755)
	n.vm.WriteFile(t, containerdConfig, nriConfig(false, 20*time.Second), 0o644)
	n.begin(t, archive)
	n.askKernel(t)

	t.Run("before", func(t *testing.T) { n.starting(t, unconfinedPod, noFilter) })
	n.install(t, "agent")
	t.Run("absent", n.testAbsent)
	n.plugin(t, "refuse")
	n.configure(t, true, 20*time.Second)
	t.Run("refused", n.testRefused)
	n.plugin(t, "harden")
	t.Run("hardened", n.testHardened)
	t.Run("granted", n.testGrantedByName)
	t.Run("claiming", n.testClaiming)
	t.Run("restarts", n.testRestarts)
	t.Run("killed idle", n.testKilledIdle)
	t.Run("stopped inside", n.testStoppedInside)
	t.Run("killed inside", n.testKilledInside)
	t.Run("log", n.testLog)
	t.Run("wrapper behind", n.testWrapperBehind)
}

// testAbsent shows what a plugin that is not there does: nothing, unless it is required.
func (n *nriTest) testAbsent(t *testing.T) {
	n.starting(t, unconfinedPod, noFilter)
	n.configure(t, true, 20*time.Second)
	n.notStarting(t, unconfinedPod, `required plugin "afalg-policy" not present`)
	n.configure(t, false, 20*time.Second)
}

func (n *nriTest) testRefused(t *testing.T) {
	for _, c := range []workload{unconfinedPod, {name: "mighty", options: []string{"--privileged"}}} {
		if c.name == "free" || n.mighty {
			n.notStarting(t, c, "the container has no seccomp profile")
		}
	}
	n.expect(t, workload{name: "ordinary"}, n.refused(t))
}

func (n *nriTest) testHardened(t *testing.T) {
	n.expect(t, workload{name: "ordinary"}, n.refused(t))
	n.expect(t, unconfinedPod, n.refused(t))
	if n.mighty {
		n.expect(t, workload{name: "mighty", options: []string{"--privileged"}}, n.refused(t))
	}
}

// testGrantedByName shows that the pod which the policy names has the algorithm, and
// one of the same name in another namespace has not.
func (n *nriTest) testGrantedByName(t *testing.T) {
	n.expect(t, workload{name: "known", options: []string{"--namespace=crypto"}}, n.granted(t))
	n.expect(t, workload{name: "granted"}, n.granted(t))
	n.says(t, workload{name: "known", options: []string{"--namespace=default"}}, inContainer, n.said(t, false))
	n.says(t, workload{name: "digested", image: "known"}, inContainer, n.said(t, true))
	n.says(t, workload{name: "labelled", image: "claiming"}, inContainer, n.said(t, false))
}

func (n *nriTest) mainProcess(t *testing.T) string {
	t.Helper()
	return n.vm.Output(t, "systemctl", "show", "--property=MainPID", "--value", agentUnit)
}

// testKilledIdle shows that nothing starts while the plugin is gone, and that it is
// back by itself.
func (n *nriTest) testKilledIdle(t *testing.T) {
	n.vm.Output(t, "systemctl", "stop", agentUnit+".service", agentUnit+".socket")
	n.notStarting(t, unconfinedPod, `required plugin "afalg-policy" not present`)
	n.connecting(t, func() { n.vm.Output(t, "systemctl", "start", agentUnit+".socket", agentUnit+".service") })
	n.starting(t, unconfinedPod, hasFilter)
	n.connecting(t, func() {
		n.vm.Output(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", agentUnit)
		// The next agent may be there before containerd asks.
		if r := n.starts(t, unconfinedPod); r.Exit == 0 && string(r.Stdout) != hasFilter {
			t.Errorf("it says %q", r.Stdout)
		}
	})
	n.starting(t, unconfinedPod, hasFilter)
}

// testStoppedInside stops the agent's process, so that containerd waits in vain: it
// refuses the container by the second question, which the plugin does not answer.
func (n *nriTest) testStoppedInside(t *testing.T) {
	n.configure(t, true, 2*time.Second)
	n.vm.Output(t, "kill", "-STOP", n.mainProcess(t))
	n.notStarting(t, unconfinedPod, "validator plugin 90-afalg-policy failed")
	n.notStarting(t, unconfinedPod, "required plugin")
	n.connecting(t, func() { n.vm.Output(t, "kill", "-CONT", n.mainProcess(t)) })
	n.configure(t, true, 20*time.Second)
	n.starting(t, unconfinedPod, hasFilter)
}

// testKilledInside kills the agent while containerd waits for it.
func (n *nriTest) testKilledInside(t *testing.T) {
	n.connecting(t, func() {
		pid := n.mainProcess(t)
		n.vm.Output(t, "kill", "-STOP", pid)
		// containerd is waiting once the pod is there and its container is not.
		n.vm.Output(t, "sh", "-c", "(until ctr --namespace=k8s.io container list | grep -q pause; do sleep .1; done; sleep 2; kill -KILL "+pid+") >/dev/null 2>&1 &")
		// On a slow machine the next agent is there before containerd asks.
		r := n.starts(t, unconfinedPod)
		if r.Exit == 0 && string(r.Stdout) != hasFilter || r.Exit != 0 && !bytes.Contains(r.Stderr, []byte("validator plugin 90-afalg-policy failed")) && !bytes.Contains(r.Stderr, []byte("required plugin")) {
			t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
		}
	})
	n.starting(t, unconfinedPod, hasFilter)
}

// testLog shows that each container stands in the log, as those of the wrapper do.
func (n *nriTest) testLog(t *testing.T) {
	verdicts := map[string]int{}
	for line := range bytes.Lines(n.vm.Run(t, "cat", containerLog).Stdout) {
		var l struct{ Msg, Verdict, Stage, Platform string }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l.Msg == "container" && l.Stage == "nri" && l.Platform == "containerd" {
			verdicts[l.Verdict]++
		}
	}
	for _, v := range []string{"closed", "granted", "refused"} {
		if verdicts[v] == 0 {
			t.Errorf("no container is logged as %s: %v", v, verdicts)
		}
	}
}

// testWrapperBehind has the wrapper runtime stand behind a plugin that is not even
// required: what comes through as the runtime had it is hardened there, and what the
// plugin has hardened is accepted.
func (n *nriTest) testWrapperBehind(t *testing.T) {
	n.configure(t, false, 20*time.Second)
	n.connecting(t, func() { n.install(t, "containerd") })
	n.says(t, workload{name: "granted"}, inContainer, n.said(t, true))
	n.starting(t, unconfinedPod, hasFilter)
	n.vm.Output(t, "systemctl", "stop", agentUnit+".service", agentUnit+".socket")
	n.starting(t, unconfinedPod, hasFilter)
	n.expect(t, workload{name: "ordinary"}, n.refused(t))
}
