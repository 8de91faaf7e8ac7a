//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const containerLog = "/var/log/afalg-policy/containers.json"

// platformPolicy grants a rule to containers that are known by what each
// platform vouches for.
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

// TestPlatforms installs the policy on each platform as its manual says, and
// uses containers as people do: before, after, and when it is taken back.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	archive, digests := imageArchive(t)
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			p := &platformTest{engine: e, vm: e.boot(t), digests: digests}
			p.start(t, p.vm, archive)
			p.vm.WriteFile(t, buildDir+"/Dockerfile", []byte(dockerfile), 0o644)
			p.vm.WriteFile(t, agentPolicy, platformPolicy(t, digests, "refuse"), 0o644)
			p.routes = routeNames(t, p.vm)

			t.Run("before", p.testOpen)
			t.Run("builds before", p.testOpenBuilds)
			p.useRaw(t)
			p.makeOld(t)
			before := p.snapshot(t)
			p.install(t, "systemd")
			for _, platform := range append(e.also, e.platform) {
				p.install(t, platform)
			}
			t.Run("status", p.testStatus)
			t.Run("ordinary", p.testOrdinary)
			t.Run("old", p.testOld)
			t.Run("granted", p.testGranted)
			t.Run("claiming", p.testClaiming)
			t.Run("stolen", p.testStolen)
			t.Run("raw filter", p.testRaw)
			t.Run("unconfined", p.testUnconfined)
			t.Run("builds", p.testBuilds)
			if !p.brief {
				t.Run("restarts", p.testRestarts)
				t.Run("agent down", p.testAgentDown)
			}
			for _, platform := range append(e.also, e.platform) {
				p.uninstall(t, platform)
			}
			p.uninstall(t, "systemd")
			if d := cmp.Diff(before, p.snapshot(t)); d != "" {
				t.Errorf("the host after uninstall, -before +after:\n%s", d)
			}
			t.Run("after", p.testOpen)
			if t.Failed() {
				t.Logf("%s", p.vm.Run(t, "sh", "-c", "tail -n 30 "+containerLog+" /run/*.log").Stdout)
			}
		})
	}
}

// platformTest is a machine with one platform under test.
type platformTest struct {
	engine
	vm      *VM
	digests map[string]string
	routes  []string
}

const (
	buildDir   = "/run/build"
	dockerfile = `FROM localhost/plain:1
RUN kcapi-dgst -c sha256 --hex -i /etc/debian_version 2>&1 || true
`
	// work asks the kernel about every route, and uses two algorithms.
	work = `/afalg-policy probe 2>/tmp/probe.err | cut -f 1,2
` + inContainer
)

func routeNames(t *testing.T, vm *VM) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(vm.Output(t, installed, "list", "routes")) {
		name, _, _ := strings.Cut(line, "\t")
		names = append(names, name)
	}
	return names
}

// verdicts is what work prints where every route is closed, or each but those
// that the platform itself closes, and no socket is passed in.
func (p *platformTest) verdicts(open bool) string {
	var text strings.Builder
	for _, name := range p.routes {
		verdict := "closed"
		if open && name != "inherited" && !slices.Contains(p.engine.closed, name) {
			verdict = "open"
		}
		fmt.Fprintf(&text, "%s\t%s\n", name, verdict)
	}
	return text.String()
}

// free, refused and granted are what work prints without a policy, and in a
// container that the policy grants nothing, or the rule.
func (p *platformTest) free(t *testing.T) string {
	t.Helper()
	hmac := wantDigest(t, p.vm)
	return p.verdicts(true) + hmac + p.plainDigest(t) + hmac
}

func (p *platformTest) refused(t *testing.T) string { return p.verdicts(false) + said(t, p.vm, false) }
func (p *platformTest) granted(t *testing.T) string { return p.verdicts(false) + said(t, p.vm, true) }

// plainDigest is what the rule does not allow.
func (p *platformTest) plainDigest(t *testing.T) string {
	t.Helper()
	return sum([]byte(p.vm.Output(t, "cat", "/etc/debian_version") + "\n"))
}

// expect runs a container that works, and compares what it says. Standard
// error is the container's own, too.
func (p *platformTest) expect(t *testing.T, c workload, want string) {
	t.Helper()
	p.says(t, c, work, want)
}

func (p *platformTest) says(t *testing.T, c workload, script, want string) {
	t.Helper()
	c.args = []string{"sh", "-c", script}
	r := p.try(t, p.vm, c)
	if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 || len(r.Stderr) > 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\nstandard error: %s", c.name, r.Exit, d, r.Stderr)
	}
}

// expectExec does the work in a container that runs.
func (p *platformTest) expectExec(t *testing.T, when string, args []string, script, want string) {
	t.Helper()
	r := p.vm.Command(t, Command{Args: append(args, "sh", "-c", script), Timeout: 4 * time.Minute})
	if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 {
		t.Errorf("%v, %s: exit status %d, -want +got:\n%s\n%s", args, when, r.Exit, d, r.Stderr)
	}
}

// sleeping starts a container that stays.
func (p *platformTest) sleeping(t *testing.T, c workload) {
	t.Helper()
	c.detach, c.args = true, []string{"sleep", "100000"}
	if r := p.try(t, p.vm, c); r.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s", c.name, r.Exit, r.Stderr)
	}
}

func (p *platformTest) discard(t *testing.T, name string) {
	t.Helper()
	p.vm.Output(t, append(slices.Clone(p.remove), name)...)
}

// testOpen shows that the platform by itself closes nothing.
func (p *platformTest) testOpen(t *testing.T) {
	free := p.engine.free
	free.name = "free"
	p.expect(t, free, p.free(t))
}

func (p *platformTest) testOpenBuilds(t *testing.T) {
	digest := p.plainDigest(t)
	for _, b := range slices.Sorted(maps.Keys(p.builds)) {
		if out := p.build(t, b); !strings.Contains(out, digest) {
			t.Errorf("%s: no digest in\n%s", b, out)
		}
	}
}

func (p *platformTest) build(t *testing.T, builder string) string {
	t.Helper()
	r := p.vm.Command(t, Command{Args: []string{"sh", "-c", p.builds[builder], buildDir}, Timeout: 4 * time.Minute})
	if r.Exit != 0 {
		t.Errorf("%s: exit status %d", builder, r.Exit)
	}
	return string(r.Stdout) + string(r.Stderr)
}

// install does what the program says: it prints what is to be run afterwards.
func (p *platformTest) install(t *testing.T, platform string) {
	t.Helper()
	p.change(t, "install", platform)
}

func (p *platformTest) uninstall(t *testing.T, platform string) {
	t.Helper()
	p.change(t, "uninstall", platform)
}

func (p *platformTest) change(t *testing.T, command, platform string) {
	t.Helper()
	r := p.vm.Run(t, installed, command, platform)
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

// snapshot lists what a host's configuration is made of: files with their
// content, mode, owner and time; directories with mode and owner.
func (p *platformTest) snapshot(t *testing.T) string {
	t.Helper()
	return p.vm.Output(t, "sh", "-c", `cd / && {
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -type d -printf '%p %m %U:%G\n'
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -not -type d -printf '%p %m %U:%G %T@ %l\n'
find etc var/lib/afalg-policy usr/local/lib/afalg-policy -type f -exec sha256sum {} +
} 2>/dev/null | grep -v `+agentPolicy[1:]+` | sort`)
}

func (p *platformTest) testStatus(t *testing.T) {
	r := p.vm.Command(t, Command{Args: []string{installed, "status", "--json", "systemd", p.platform}, Timeout: 5 * time.Minute})
	var got []map[string]any
	if err := json.Unmarshal(r.Stdout, &got); err != nil {
		t.Fatalf("exit status %d: %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
	}
	want := []map[string]any{
		{"platform": p.platform, "installed": "yes", "active": "yes", "proved": "yes"},
		{"platform": "systemd", "installed": "yes", "active": "yes", "proved": "yes"},
	}
	if d := cmp.Diff(want, got); d != "" || r.Exit != 0 {
		t.Errorf("exit status %d, -want +got:\n%s\n%s", r.Exit, d, r.Stderr)
	}
}

func (p *platformTest) testOrdinary(t *testing.T) {
	p.expect(t, workload{name: "ordinary"}, p.refused(t))
	for _, how := range slices.Sorted(maps.Keys(p.others)) {
		c := workload{name: "other", args: []string{"sh", "-c", work}}
		r := p.vm.Command(t, Command{Args: p.others[how](c), Timeout: 4 * time.Minute})
		if d := cmp.Diff(p.refused(t), string(r.Stdout)); d != "" || r.Exit != 0 {
			t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", how, r.Exit, d, r.Stderr)
		}
	}
	p.sleeping(t, workload{name: "inside"})
	defer p.discard(t, "inside")
	p.verify(t, "inside")
	p.expectExec(t, "as it is", p.exec("inside"), work, p.refused(t))
	for how, exec := range p.execs {
		p.expectExec(t, how, exec("inside"), work, p.refused(t))
	}
}

// makeOld makes a container that remembers by which runtime it is started, and
// has no profile.
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

// verify asks the filters of a container that runs, from outside.
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
	if !verified.Closed || len(verified.Filters) == 0 || !strings.HasPrefix(verified.Filters[0].Name, of) {
		t.Errorf("verify says closed %v of %+v, open: %s", verified.Closed, verified.Filters, verified.openRoutes())
	}
}

func (p *platformTest) testGranted(t *testing.T) {
	p.expect(t, p.vouched[0], p.granted(t))
	for _, c := range p.vouched[1:] {
		p.says(t, c, inContainer, said(t, p.vm, true))
	}
}

// testClaiming: what a container says of itself grants nothing, and is
// written down.
func (p *platformTest) testClaiming(t *testing.T) {
	for _, c := range p.claiming {
		p.says(t, c, inContainer, said(t, p.vm, false))
		log := p.vm.Output(t, "tail", "-n", "3", containerLog)
		if !strings.Contains(log, `"msg":"claim"`) {
			t.Errorf("%s: no claim is logged:\n%s", c.name, log)
		}
	}
}

// testStolen: a profile that was made for another container is refused.
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

// testRaw: nobody brings a filter around the profile that was proved.
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
	// One of them stands for all: none is told from the others by its spec.
	how := slices.Sorted(maps.Keys(p.unconfined))[0]
	p.expect(t, workload{name: "hardened", options: p.unconfined[how], unconfined: true}, p.refused(t))
	p.vm.WriteFile(t, agentPolicy, platformPolicy(t, p.digests, "refuse"), 0o644)
}

func (p *platformTest) testBuilds(t *testing.T) {
	for _, b := range slices.Sorted(maps.Keys(p.builds)) {
		if out := p.build(t, b); !strings.Contains(out, strings.TrimSpace(noSocket)) {
			t.Errorf("%s: AF_ALG is not closed in\n%s", b, out)
		}
	}
}

// testRestarts: a container keeps what it has while the agent and the daemon
// are restarted, and gets it again when it is started again.
func (p *platformTest) testRestarts(t *testing.T) {
	p.sleeping(t, workload{name: "granted"})
	defer p.discard(t, "granted")
	want := said(t, p.vm, true)
	if p.execGranted != "" {
		want = p.execGranted
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

// testAgentDown: only who needs the agent does not start without it.
func (p *platformTest) testAgentDown(t *testing.T) {
	p.vm.Output(t, "systemctl", "stop", agentUnit+".socket", agentUnit+".service")
	r := p.try(t, p.vm, workload{name: "granted", args: []string{"echo", "up"}})
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("no agent answers on "+agentSocket)) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
	p.vm.Run(t, append(slices.Clone(p.remove), "granted")...)
	p.says(t, workload{name: "ordinary"}, inContainer, said(t, p.vm, false))
	p.vm.Output(t, "systemctl", "start", agentUnit+".socket", agentUnit+".service")
	p.says(t, workload{name: "granted"}, inContainer, said(t, p.vm, true))
}
