//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

const containerLog = "/var/log/afalg-policy/containers.json"

// platformPolicy grants a rule to containers that it knows by each platform's
// vouched facts.
func platformPolicy(t *testing.T, digests map[string]string, unconfined string) []byte {
	t.Helper()
	return fmt.Appendf(containerPolicy(t), `containers:
  unconfined: %s
  grants:
    - rules: [digest]
      names: [granted]
    - rules: [digest]
      images: [%q]
    - rules: [digest]
      labels: {app: web}
    - rules: [digest]
      annotations: {app: web}
    - rules: [digest]
      namespaces: [crypto]
      pods: [known-pod]
`, unconfined, digests["known"])
}

// TestBoxPlatforms installs the policy on each platform as its manual says, and
// uses containers as people do: before, after, and after uninstall.
func TestBoxPlatforms(t *testing.T) {
	boxed := slices.DeleteFunc(engines(), func(e engine) bool { return e.unboxed })
	files := buildPlatforms(t, boxed)
	t.Parallel()
	for _, e := range boxed {
		if e.unboxedBuilds {
			e.builds = nil
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			vm := box.Start(t)
			setUp(t, vm, boxContainers)
			newPlatformTest(t, e, vm, files).testWhole(t, files.archive)
		})
	}
}

// TestLongPlatforms restarts each platform on each kernel, and takes its agent
// away; where a box cannot, it does the whole, which includes both, on one kernel.
func TestLongPlatforms(t *testing.T) {
	files := buildPlatforms(t, engines())
	t.Parallel()
	for _, e := range engines() {
		if e.wholeOn(e.kernel) {
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				vm := bootPlatforms(t, e.kernel)
				p := newPlatformTest(t, e, vm, files)
				p.testWhole(t, files.archive)
				if !p.real {
					t.Error("this kernel has no AF_ALG")
				}
			})
		}
	}
	for _, version := range Kernels() {
		for _, host := range []struct {
			name    string
			unboxed bool
		}{{"Debian's", false}, {"containerd 2", true}} {
			wanted := func(e engine) bool { return e.unboxed == host.unboxed && !e.wholeOn(version) }
			if !slices.ContainsFunc(engines(), wanted) {
				continue
			}
			t.Run(version+", "+host.name, func(t *testing.T) {
				t.Parallel()
				testSideBySide(t, bootPlatforms(t, version), files, wanted, func(t *testing.T, p *platformTest) {
					t.Run("restarts", p.testRestarts)
					t.Run("agent down", p.testAgentDown)
				})
			})
		}
	}
}

// wholeOn reports whether TestLongPlatforms does the whole on this kernel.
func (e engine) wholeOn(version string) bool {
	return (e.unboxed || e.unboxedBuilds) && e.kernel == version
}

func bootPlatforms(t *testing.T, version string) *VM {
	t.Helper()
	vm := Boot(t, version, Options{Systemd: true, Memory: 3072})
	setUpPlatforms(t, vm)
	return vm
}

// setUpPlatforms also loads the module that the prober would find loadable.
func setUpPlatforms(t *testing.T, vm *VM) {
	t.Helper()
	setUp(t, vm, vmContainers)
	vm.Output(t, "modprobe", "-a", "af_alg", "algif_hash")
}

// testTruths shows on a kernel that has AF_ALG that the granted container
// computes and its neighbour does not, on the platforms that have their turn on
// this kernel.
func testTruths(t *testing.T, vm *VM, version string, files platformFiles) {
	setUpPlatforms(t, vm)
	testSideBySide(t, vm, files, func(e engine) bool { return e.kernel == version },
		func(t *testing.T, p *platformTest) { p.testTruth(t) })
}

// testSideBySide runs several platforms on one host: they start without a
// policy, the policy is installed on all, and each is asked.
func testSideBySide(t *testing.T, vm *VM, files platformFiles, wanted func(engine) bool, ask func(*testing.T, *platformTest)) {
	var platforms []*platformTest
	install := []string{"agent"}
	for _, e := range engines() {
		if wanted(e) {
			platforms = append(platforms, newPlatformTest(t, e, vm, files))
			install = append(append(install, e.also...), e.platform)
		}
	}
	for _, p := range platforms {
		p.begin(t, files.archive)
		if !p.real {
			t.Error("this kernel has no AF_ALG")
		}
		t.Run(p.name+", before", func(t *testing.T) { p.says(t, p.freely(), inContainer, p.saidFree(t)) })
	}
	for i, platform := range install {
		if !slices.Contains(install[:i], platform) {
			platforms[0].install(t, platform)
		}
	}
	for _, p := range platforms {
		t.Run(p.name, func(t *testing.T) { ask(t, p) })
	}
}

func (p *platformTest) testTruth(t *testing.T) {
	p.says(t, p.vouched[0], inContainer, p.said(t, true))
	p.says(t, workload{name: "ordinary"}, inContainer, p.said(t, false))
}

func newPlatformTest(t *testing.T, e engine, vm *VM, files platformFiles) *platformTest {
	t.Helper()
	if put := files.put[e.name]; put != nil {
		put(vm)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if r, err := vm.Do(context.Background(), Command{Args: []string{"sh", "-c", "tail -n 30 " + containerLog + " /run/*.log"}}); err == nil {
				t.Logf("%s", r.Stdout)
			}
		}
	})
	return &platformTest{engine: e, vm: vm, digests: files.digests}
}

// begin starts the platform without a policy.
func (p *platformTest) begin(t *testing.T, archive string) {
	t.Helper()
	p.start(t, p.vm, archive)
	p.vm.WriteFile(t, agentPolicy, platformPolicy(t, p.digests, "refuse"), 0o644)
	p.real = hasALG(t, p.vm)
}

func (p *platformTest) installAll(t *testing.T) {
	t.Helper()
	p.install(t, "agent")
	for _, platform := range append(p.also, p.platform) {
		p.install(t, platform)
	}
}

func (p *platformTest) testWhole(t *testing.T, archive string) {
	p.begin(t, archive)
	p.askKernel(t)
	p.vm.WriteFile(t, buildDir+"/Dockerfile", []byte(dockerfile), 0o644)
	p.vm.Output(t, "cp", installed, buildDir)

	t.Run("before", p.testOpen)
	t.Run("builds before", p.testOpenBuilds)
	p.useRaw(t)
	p.makeOld(t)
	before := p.snapshot(t)
	p.installAll(t)
	t.Run("status", p.testStatus)
	t.Run("ordinary", p.testOrdinary)
	t.Run("old", p.testOld)
	t.Run("granted", p.testGranted)
	t.Run("claiming", p.testClaiming)
	t.Run("stolen", p.testStolen)
	t.Run("raw filter", p.testRaw)
	t.Run("unconfined", p.testUnconfined)
	t.Run("builds", p.testBuilds)
	t.Run("restarts", p.testRestarts)
	t.Run("agent down", p.testAgentDown)
	for _, platform := range append(p.also, p.platform) {
		p.uninstall(t, platform)
	}
	p.uninstall(t, "agent")
	if d := cmp.Diff(before, p.snapshot(t)); d != "" {
		t.Errorf("the host after uninstall, -before +after:\n%s", d)
	}
	t.Run("after", p.testOpen)
}

// testOpen shows that the platform by itself closes nothing.
func (p *platformTest) testOpen(t *testing.T) {
	p.expect(t, p.freely(), p.free(t))
}

func (p *platformTest) freely() workload {
	c := p.engine.free
	c.name = "free"
	return c
}

func (p *platformTest) testOpenBuilds(t *testing.T) {
	for _, b := range slices.Sorted(maps.Keys(p.builds)) {
		if out := p.build(t, b); !strings.Contains(out, "socket\t"+p.kernel[0].verdict+"\t") {
			t.Errorf("%s: the socket is not %s in\n%s", b, p.kernel[0].verdict, out)
		}
	}
}

func (p *platformTest) build(t *testing.T, builder string) string {
	t.Helper()
	r := p.vm.Command(t, Command{Args: []string{"sh", "-c", p.builds[builder], buildDir}, Timeout: 4 * time.Minute})
	if r.Exit != 0 {
		t.Errorf("%s: exit status %d\n%s%s", builder, r.Exit, r.Stdout, r.Stderr)
	}
	return string(r.Stdout) + string(r.Stderr)
}

// install runs the commands that the program prints for afterwards.
func (p *platformTest) install(t *testing.T, platform string, flags ...string) {
	t.Helper()
	p.change(t, "install", platform, flags...)
}

func (p *platformTest) uninstall(t *testing.T, platform string) {
	t.Helper()
	p.change(t, "uninstall", platform)
}

func (p *platformTest) change(t *testing.T, command, platform string, flags ...string) {
	t.Helper()
	r := p.vm.Run(t, append([]string{installed, command, platform}, flags...)...)
	t.Logf("%s %s:\n%s%s", command, platform, r.Stdout, r.Stderr)
	if r.Exit != 0 {
		t.Fatalf("%s %s: exit status %d", command, platform, r.Exit)
	}
	for line := range strings.Lines(string(r.Stderr)) {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			r := p.vm.Command(t, Command{Args: []string{"sh", "-c", command}, Timeout: 4 * time.Minute})
			if r.Exit != 0 {
				t.Fatalf("%s: exit status %d\n%s", command, r.Exit, r.Stderr)
			}
		}
	}
}

// snapshot lists the files of a host's configuration: files with their content,
// mode, owner and time; directories with mode and owner.
func (p *platformTest) snapshot(t *testing.T) string {
	t.Helper()
	return p.vm.Output(t, "sh", "-c", `cd / && {
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -type d -printf '%p %m %U:%G\n'
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -not -type d -printf '%p %m %U:%G %T@ %l\n'
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -type f -exec sha256sum {} +
} 2>/dev/null | grep -v `+agentPolicy[1:]+` | sort`)
}

func (p *platformTest) testStatus(t *testing.T) {
	r := p.vm.Command(t, Command{Args: []string{installed, "status", "--json", "agent", p.platform}, Timeout: 5 * time.Minute})
	var report struct {
		Verdict   string
		Platforms []map[string]any
	}
	if err := json.Unmarshal(r.Stdout, &report); err != nil {
		t.Fatalf("exit status %d: %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
	}
	want := []map[string]any{
		{"platform": p.platform, "policy": "yes", "installed": "yes", "active": "yes", "agent": "yes", "probed": "yes"},
		{"platform": "agent", "policy": "yes", "installed": "yes", "active": "yes", "agent": "not needed", "probed": "yes"},
	}
	if d := cmp.Diff(want, report.Platforms); d != "" || r.Exit != 0 || report.Verdict != "yes" {
		t.Errorf("exit status %d, %s, -want +got:\n%s\n%s", r.Exit, report.Verdict, d, r.Stderr)
	}
}

func (p *platformTest) testOrdinary(t *testing.T) {
	p.expect(t, workload{name: "ordinary"}, p.refused(t))
	for _, how := range slices.Sorted(maps.Keys(p.others)) {
		c := workload{name: "other", args: []string{"sh", "-c", work}}
		p.compare(t, how, p.others[how](c), p.refused(t))
	}
	p.sleeping(t, workload{name: "inside"})
	defer p.discard(t, "inside")
	p.verify(t, "inside")
	p.expectExec(t, "as it is", p.exec("inside"), work, p.refused(t))
	for how, exec := range p.execs {
		if how == privileged && !p.mighty {
			if r := p.vm.Run(t, exec("inside", "true")...); bytes.Contains(r.Stdout, []byte("unable to apply caps")) {
				continue // nothing is started
			}
		}
		p.expectExec(t, how, exec("inside"), work, p.refused(t))
	}
}

// makeOld makes a container that remembers the runtime of its start, and has no
// profile.
func (p *platformTest) makeOld(t *testing.T) {
	t.Helper()
	if p.old != "" {
		p.vm.Output(t, p.old, "create", "--privileged", "--network=none", "--name=old", imageName(""), "echo", "up")
	}
}

func (p *platformTest) testOld(t *testing.T) {
	if p.old == "" {
		return
	}
	r := p.vm.Command(t, Command{Args: []string{p.old, "start", "--attach", "old"}, Timeout: 4 * time.Minute})
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("the container has no seccomp profile")) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
	p.discard(t, "old")
}

// verify asks the filters of a running container, from outside.
func (p *platformTest) verify(t *testing.T, name string) {
	t.Helper()
	if p.old == "" {
		return // verify knows the containers of docker and podman by name
	}
	r := p.vm.Run(t, installed, "verify", "--json", "--container", name)
	var verified report
	if err := json.Unmarshal(r.Stdout, &verified); err != nil {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	of := "container " + name + " of " + p.name
	if !verified.closed() || len(verified.Filters) == 0 || !strings.HasPrefix(verified.Filters[0].Name, of) {
		t.Errorf("verify says %s of %+v, open: %s", verified.Verdict, verified.Filters, verified.openRoutes())
	}
}

func (p *platformTest) testGranted(t *testing.T) {
	p.expect(t, p.vouched[0], p.granted(t))
	for _, c := range p.vouched[1:] {
		p.says(t, c, inContainer, p.said(t, true))
	}
}

// testClaiming shows that a container's own word grants nothing, and is logged.
func (p *platformTest) testClaiming(t *testing.T) {
	for _, c := range p.claiming {
		p.says(t, c, inContainer, p.said(t, false))
		log := p.vm.Output(t, "tail", "-n", "3", containerLog)
		if !strings.Contains(log, `"msg":"claim"`) {
			t.Errorf("%s: no claim is logged:\n%s", c.name, log)
		}
	}
}

// testStolen shows that a profile made for another container is refused.
func (p *platformTest) testStolen(t *testing.T) {
	if p.stolen == nil {
		return
	}
	p.vm.WriteFile(t, stolenProfile, agentProfile(t, "--format", "docker", "--base", podmanBase, "--grant", "digest"), 0o644)
	r := p.try(t, p.vm, workload{name: "thief", options: p.stolen, args: []string{"echo", "up"}})
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte(`claims the rule "digest", which the policy does not grant`)) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// useRaw shows that a raw filter takes the place of a profile under which no
// process could start.
func (p *platformTest) useRaw(t *testing.T) {
	t.Helper()
	if p.raw == nil {
		return
	}
	const nothing = "/run/nothing.json"
	p.vm.WriteFile(t, nothing, []byte(`{"defaultAction": "SCMP_ACT_ERRNO"}`), 0o644)
	options := []string{"--security-opt=seccomp=" + nothing}
	for _, raw := range []bool{false, true} {
		if raw {
			options = append(options, p.raw...)
		}
		r := p.try(t, p.vm, workload{name: "raw", options: options, args: []string{"echo", "up"}})
		if up := string(r.Stdout) == "up\n"; up != raw {
			t.Errorf("with a raw filter %v: exit status %d, and it says %q\n%s", raw, r.Exit, r.Stdout, r.Stderr)
		}
		p.vm.Run(t, append(slices.Clone(p.remove), "raw")...)
	}
}

// testRaw shows that no filter bypasses the proved profile.
func (p *platformTest) testRaw(t *testing.T) {
	if p.raw == nil {
		return
	}
	r := p.try(t, p.vm, workload{name: "raw", options: p.raw, args: []string{"echo", "up"}})
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("has crun take another filter than linux.seccomp says")) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
	p.vm.Run(t, append(slices.Clone(p.remove), "raw")...)
}

func (p *platformTest) testUnconfined(t *testing.T) {
	for _, how := range slices.Sorted(maps.Keys(p.unconfined)) {
		c := workload{name: "free", options: p.unconfined[how], unconfined: true, args: []string{"echo", "up"}}
		r := p.try(t, p.vm, c)
		if r.Exit == 0 || len(r.Stdout) > 0 {
			t.Errorf("%s: exit status %d, and it says %q", how, r.Exit, r.Stdout)
		}
		if !bytes.Contains(r.Stderr, []byte("the container has no seccomp profile")) {
			t.Errorf("%s: the reason is not told: %s", how, r.Stderr)
		}
		p.vm.Run(t, append(slices.Clone(p.remove), c.name)...)
	}
	p.vm.WriteFile(t, agentPolicy, platformPolicy(t, p.digests, "harden"), 0o644)
	for _, how := range slices.Sorted(maps.Keys(p.unconfined)) {
		if how != privileged || p.mighty {
			p.expect(t, workload{name: "hardened", options: p.unconfined[how], unconfined: true}, p.refused(t))
		}
	}
	p.vm.WriteFile(t, agentPolicy, platformPolicy(t, p.digests, "refuse"), 0o644)
}

func (p *platformTest) testBuilds(t *testing.T) {
	for _, b := range slices.Sorted(maps.Keys(p.builds)) {
		if out := p.build(t, b); !strings.Contains(out, "socket\tclosed\t") {
			t.Errorf("%s: AF_ALG is not closed in\n%s", b, out)
		}
	}
}

// testRestarts shows that a container keeps its grants while the agent and the
// daemon are restarted, and gets them again when it is started again.
func (p *platformTest) testRestarts(t *testing.T) {
	p.sleeping(t, workload{name: "granted"})
	defer p.discard(t, "granted")
	want := p.said(t, true)
	if p.execGranted != "" {
		want = outcome{p.execGranted, false}
	}
	p.expectExec(t, "at first", p.exec("granted"), inContainer, want)
	p.vm.Output(t, "systemctl", "restart", agentUnit)
	p.expectExec(t, "after a restart of the agent", p.exec("granted"), inContainer, want)
	if p.unit != "" {
		p.vm.Output(t, "systemctl", "restart", p.unit)
	}
	if p.again != nil {
		p.vm.Output(t, append(slices.Clone(p.again), "granted")...)
	}
	p.expectExec(t, "after a restart of the platform", p.exec("granted"), inContainer, want)
}

// testAgentDown shows that only containers that need the agent do not start
// without it.
func (p *platformTest) testAgentDown(t *testing.T) {
	p.vm.Output(t, "systemctl", "stop", agentUnit+".socket", agentUnit+".service")
	r := p.try(t, p.vm, workload{name: "granted", args: []string{"echo", "up"}})
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("no agent answers on "+agentSocket)) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
	p.vm.Run(t, append(slices.Clone(p.remove), "granted")...)
	p.says(t, workload{name: "ordinary"}, inContainer, p.said(t, false))
	p.vm.Output(t, "systemctl", "start", agentUnit+".socket", agentUnit+".service")
	p.says(t, workload{name: "granted"}, inContainer, p.said(t, true))
}
