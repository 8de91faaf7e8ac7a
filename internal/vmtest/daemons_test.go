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
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// engineNamed returns one of the engines of TestBoxPlatforms.
func engineNamed(t *testing.T, name string) engine {
	t.Helper()
	i := slices.IndexFunc(engines(), func(e engine) bool { return e.name == name })
	if i < 0 {
		t.Fatalf("there is no platform %q", name)
	}
	return engines()[i]
}

// boxed is a box with a running platform and no policy yet.
func boxed(t *testing.T, name string) *platformTest {
	t.Helper()
	e := engineNamed(t, name)
	files := buildPlatforms(t, []engine{e})
	t.Parallel()
	vm := box.Start(t)
	setUp(t, vm, boxContainers)
	p := newPlatformTest(t, e, vm, files)
	p.begin(t, files.archive)
	p.askKernel(t)
	return p
}

// TestBoxDockerDefault shows that install hardens this daemon's default
// profile, which is not the pinned one. Containers keep every call that they
// had, except the routes to AF_ALG; uninstall gives those back.
func TestBoxDockerDefault(t *testing.T) {
	p := boxed(t, "docker")
	before, host := p.answers(t), p.snapshot(t)
	p.expect(t, workload{name: "before"}, p.free(t))

	p.install(t, "docker")
	p.expect(t, workload{name: "hardened"}, p.refused(t))
	after := p.answers(t)
	closed := []string{"socketcall(abi=i386)"}
	for _, name := range ioUring {
		for abi := range machineABIs {
			closed = append(closed, name+"(abi="+abi+")")
		}
	}
	slices.Sort(closed)
	changed := slices.DeleteFunc(slices.Sorted(maps.Keys(before)), func(q string) bool { return before[q] == after[q] })
	if d := cmp.Diff(closed, changed); d != "" {
		t.Errorf("calls that containers lost or won, -want +got:\n%s", d)
	}
	for _, q := range closed {
		if before[q] != "open [ALLOW]" || !strings.HasPrefix(after[q], "closed ") {
			t.Errorf("%s was %s and is %s", q, before[q], after[q])
		}
	}
	// This daemon's default permits AF_VSOCK, and the pinned one does not.
	if q := vsock; before[q] != "open [ALLOW]" || after[q] != before[q] {
		t.Errorf("%s was %s and is %s", q, before[q], after[q])
	}

	p.uninstall(t, "docker")
	if d := cmp.Diff(host, p.snapshot(t)); d != "" {
		t.Errorf("the host after uninstall, -before +after:\n%s", d)
	}
	if d := cmp.Diff(before, p.answers(t)); d != "" {
		t.Errorf("containers after uninstall, -before +after:\n%s", d)
	}
	p.expect(t, workload{name: "after"}, p.free(t))
}

var ioUring = []string{"io_uring_enter", "io_uring_register", "io_uring_setup"}

// machineABIs are the ABIs of this machine, by verify's names.
var machineABIs = map[string]specs.Arch{"x86-64": specs.ArchX86_64, "i386": specs.ArchX86, "x32": specs.ArchX32}

const vsock = "socket(arg0=40, abi=x86-64)"

// answers is the treatment by a container's loaded filters of each call that a
// profile of Docker names.
func (p *platformTest) answers(t *testing.T) map[string]string {
	t.Helper()
	names := map[string]bool{}
	for _, r := range profile.Docker().Syscalls {
		for _, name := range r.Names {
			names[name] = true
		}
	}
	for _, name := range append([]string{"socketcall"}, ioUring...) {
		names[name] = true // not every profile names them
	}
	for _, name := range []string{"socket", "socketpair"} {
		delete(names, name) // AF_ALG is closed for these, which p.expect asks for
	}
	args := []string{installed, "verify", "--json", "--container", "asked", "--ask", vsock}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for abi, arch := range machineABIs {
			if _, err := seccomp.Number(name, arch); err == nil {
				args = append(args, "--ask", name+"(abi="+abi+")")
			}
		}
	}
	p.sleeping(t, workload{name: "asked"})
	defer p.discard(t, "asked")
	r := p.vm.Command(t, Command{Args: args, Timeout: 4 * time.Minute})
	return queried(t, r)
}

// TestBoxFronts shows that a front that looks up runc in PATH, as NVIDIA's
// does, and becomes or starts it, finds the wrapper there. Its containers are
// hardened, and everything done with them works.
func TestBoxFronts(t *testing.T) {
	fronts := map[string]string{
		"execs": "#!/bin/sh\necho \"$@\" >>/run/front.log\nexec runc \"$@\"\n",
		"forks": "#!/bin/sh\necho \"$@\" >>/run/front.log\nrunc \"$@\"\n",
	}
	t.Run("docker", func(t *testing.T) {
		p := boxed(t, "docker")
		p.vm.WriteFile(t, "/etc/docker/daemon.json", mustJSON(t, map[string]any{
			"default-runtime": "nvidia", "runtimes": map[string]any{"nvidia": map[string]any{"path": front, "args": []string{}}},
		}), 0o644)
		p.vm.WriteFile(t, front, []byte(fronts["execs"]), 0o755)
		p.vm.Output(t, "systemctl", "restart", "docker")
		p.expect(t, workload{name: "before"}, p.free(t))
		p.install(t, "containerd") // has the front find the wrapper
		p.install(t, "docker")
		for _, how := range slices.Sorted(maps.Keys(fronts)) {
			t.Run(how, func(t *testing.T) { p.testFront(t, fronts[how], p.dockerLife) })
		}
	})
	t.Run("containerd", func(t *testing.T) {
		p := boxed(t, "containerd")
		p.run = ctrRun("--runc-binary=" + front)
		p.vm.WriteFile(t, front, []byte(fronts["execs"]), 0o755)
		p.expect(t, workload{name: "before"}, p.free(t))
		p.install(t, "containerd")
		for _, how := range slices.Sorted(maps.Keys(fronts)) {
			t.Run(how, func(t *testing.T) { p.testFront(t, fronts[how], p.ctrLife) })
		}
	})
}

const front = "/usr/local/bin/nvidia-container-runtime"

func (p *platformTest) testFront(t *testing.T, script string, life func(*testing.T)) {
	p.vm.WriteFile(t, front, []byte(script), 0o755)
	p.vm.Output(t, "rm", "-f", "/run/front.log")
	p.expect(t, workload{name: "ordinary"}, p.refused(t))
	p.sleeping(t, workload{name: "inside"})
	p.expectExec(t, "through the front", p.exec("inside"), work, p.refused(t))
	life(t)
	log := p.vm.Output(t, "cat", "/run/front.log")
	for _, command := range []string{"create", "start", "exec", "state", "kill", "delete"} {
		if !strings.Contains(log, " "+command+" ") {
			t.Errorf("the front never had %q to do:\n%s", command, log)
		}
	}
}

// dockerLife asks for the state of a container as the daemon would, kills and
// removes it.
func (p *platformTest) dockerLife(t *testing.T) {
	t.Helper()
	id := strings.TrimSpace(p.vm.Output(t, docker, "inspect", "--format={{.Id}}", "inside"))
	p.state(t, id, "/run/docker/runtime-*/moby")
	p.vm.Output(t, docker, "kill", "inside")
	if got := p.vm.Output(t, docker, "wait", "inside"); got != "137" {
		t.Errorf("it ended with %q", got)
	}
	p.vm.Output(t, docker, "rm", "inside")
}

func (p *platformTest) ctrLife(t *testing.T) {
	t.Helper()
	p.state(t, "inside", "/run/containerd/runc/default")
	p.vm.Output(t, "ctr", "task", "kill", "--signal=SIGKILL", "inside")
	p.vm.Output(t, "sh", "-c", "until ctr task ls | grep -q 'inside.*STOPPED'; do :; done")
	p.vm.Output(t, "ctr", "task", "rm", "inside")
	p.vm.Output(t, "ctr", "container", "rm", "inside")
}

// state asks the front with the PATH that containerd has.
func (p *platformTest) state(t *testing.T, id, roots string) {
	t.Helper()
	const ask = `export $(systemctl show --property=Environment --value containerd)
for root in $1; do [ -d "$root/$0" ] && exec $2 --root "$root" state "$0"; done; exit 9`
	r := p.vm.Run(t, "sh", "-c", ask, id, roots, front)
	var state specs.State
	if err := json.Unmarshal(r.Stdout, &state); err != nil || state.Status != specs.StateRunning {
		t.Errorf("state: exit status %d, %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
	}
}

// TestBoxProofsAhead shows that when the policy closes more and the agent reads
// it again, the default profiles are proved before a container comes.
func TestBoxProofsAhead(t *testing.T) {
	p := boxed(t, "docker")
	p.install(t, "agent")
	p.install(t, "docker")
	proofs := func() string { return p.vm.Output(t, "sh", "-c", "find /var/cache/afalg-policy/proofs -type f | sort") }
	const proved = "the default profiles of the installed platforms are proved"
	// provedAfter does something that leads to proofs, by the agent's log.
	provedAfter := func(args ...string) {
		t.Helper()
		log := "/run/" + agentUnit + ".log"
		p.vm.Output(t, append([]string{"sh", "-c", `n=$(grep -c "` + proved + `" ` + log + `)
"$@"; until [ $(grep -c "` + proved + `" ` + log + `) -gt $n ]; do sleep 0.1; done`, "sh"}, args...)...)
	}
	provedAfter("systemctl", "restart", agentUnit) // docker is there now, as at boot
	policy := platformPolicy(t, p.digests, "refuse")
	for i, families := range []string{"[AF_RXRPC]", "[AF_RXRPC, AF_KCM]"} {
		before := proofs()
		p.vm.WriteFile(t, agentPolicy, append(bytes.Clone(policy), "deny: {families: "+families+"}\n"...), 0o644)
		reloaded := i == 1
		if reloaded {
			provedAfter("systemctl", "reload", agentUnit)
			if proofs() == before {
				t.Fatalf("nothing was proved when the agent read the policy again:\n%s", p.vm.Output(t, "cat", "/run/"+agentUnit+".log"))
			}
			before = proofs()
		}
		p.expect(t, workload{name: "ordinary"}, p.refused(t))
		if waited := proofs() != before; waited == reloaded {
			t.Errorf("reloaded: %v; a container waited for its proof: %v", reloaded, waited)
		}
	}
}

// queried is verify's answer to each --ask.
func queried(t *testing.T, r Result) map[string]string {
	t.Helper()
	var report struct {
		Filters []struct {
			Answers []struct {
				About, Route, Verdict string
				Actions               []string
			}
		}
	}
	if err := json.Unmarshal(r.Stdout, &report); err != nil || len(report.Filters) != 1 {
		t.Fatalf("exit status %d: %v\n%.2000s\n%s", r.Exit, err, r.Stdout, r.Stderr)
	}
	answers := map[string]string{}
	for _, a := range report.Filters[0].Answers {
		if a.Route == "" {
			answers[a.About] = fmt.Sprintf("%s %v", a.Verdict, a.Actions)
		}
	}
	return answers
}
