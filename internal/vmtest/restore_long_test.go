//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestLongRestore checkpoints containers and restores them. Debian's crun is
// built without CRIU, and so are the kernels of some hosts: runc, in a machine.
func TestLongRestore(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "threads")
	compile(t, binary, "-static", "-pthread", "-D_GNU_SOURCE", "../../testdata/vm/threads.c")
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{Systemd: true})
			vm.Output(t, "install", "-D", program(t), installed)
			root := vm.Rootfs(t, map[string]string{
				"/threads": binary, "/afalg-policy": installed, "/bin/sh": "/bin/busybox", "/bin/cut": "/bin/busybox",
			})
			r := &restoring{wrapped{vm: vm, runtime: "runc", root: root, real: true}}
			t.Run("closed", r.testClosed)
			t.Run("open", r.testOpen)
			if newest(version) { // what the policy and a hook say of it, no kernel changes
				t.Run("unfiltered", r.testUnfiltered)
				t.Run("gate", r.testGate)
			}
		})
	}
}

// restoring has containers that are checkpointed.
type restoring struct{ wrapped }

func (r *restoring) policy(t *testing.T, unconfined string) {
	t.Helper()
	r.vm.WriteFile(t, agentPolicy, fmt.Appendf(nil, "version: 1\nname: restore\ncontainers: {unconfined: %s}\n", unconfined), 0o644)
}

// bundle is of the container in which two threads wait to be asked. CRIU leaves
// the network alone if it is the host's.
func (r *restoring) bundle(t *testing.T, seccomp string, hooks *specs.Hooks) string {
	t.Helper()
	dir := r.wrapped.bundle(t, seccomp, "/threads")
	var spec map[string]any
	if err := json.Unmarshal(r.vm.ReadFile(t, dir+"/config.json"), &spec); err != nil {
		t.Fatal(err)
	}
	linux := spec["linux"].(map[string]any)
	var namespaces []any
	for _, n := range linux["namespaces"].([]any) {
		if n.(map[string]any)["type"] != "network" {
			namespaces = append(namespaces, n)
		}
	}
	linux["namespaces"] = namespaces
	if hooks != nil {
		spec["hooks"] = hooks
	}
	config, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	r.vm.WriteFile(t, dir+"/config.json", config, 0o644)
	return dir
}

// start runs a container, by a command line of the wrapper or of runc.
func (r *restoring) start(t *testing.T, command func(...string) []string, bundle, id string) {
	t.Helper()
	if got := r.detached(t, command, "run", "--detach", "--bundle", bundle, id); got.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s", id, got.Exit, got.Stderr)
	}
}

// detached does what leaves a container behind. That keeps the streams, and CRIU
// takes none that lead out of it, so that the runtime speaks by its log.
func (r *restoring) detached(t *testing.T, command func(...string) []string, args ...string) Result {
	t.Helper()
	log := r.vm.Next("log")
	const script = `"$@" </dev/null >/dev/null 2>&1; status=$?; cat $0 >&2; exit $status`
	return r.vm.Run(t, append([]string{"sh", "-c", script, log}, command(append([]string{"--log", log}, args...)...)...)...)
}

// checkpoint ends a container, and returns the directory of its images.
func (r *restoring) checkpoint(t *testing.T, id string) string {
	t.Helper()
	images := r.vm.Next("checkpoint")
	got := r.vm.Run(t, r.command("checkpoint", "--image-path", images, id)...)
	if got.Exit != 0 {
		t.Fatalf("exit status %d\n%s\n%s", got.Exit, got.Stderr, r.vm.Run(t, "grep", "-C3", "Error", images+"/dump.log").Stdout)
	}
	if r.vm.Run(t, r.direct("state", id)...).Exit == 0 {
		r.vm.Output(t, r.direct("delete", id)...)
	}
	return images
}

func (r *restoring) restore(t *testing.T, command func(...string) []string, images, bundle, id string) Result {
	t.Helper()
	return r.detached(t, command, "restore", "--detach", "--image-path", images, "--bundle", bundle, id)
}

// restores expects that a container comes back, and does what each of its
// threads says, and what is executed in it.
func (r *restoring) restores(t *testing.T, got Result, images, id, threads, executed string) {
	t.Helper()
	if got.Exit != 0 {
		t.Fatalf("exit status %d\n%s\n%s", got.Exit, got.Stderr, r.vm.Run(t, "grep", "-C3", "Error", images+"/restore.log").Stdout)
	}
	r.expectAsked(t, id, threads)
	for name, command := range map[string][]string{"through the wrapper": r.command("exec", id), "past the wrapper": r.direct("exec", id)} {
		const ask = "/afalg-policy probe --route socket | cut -f 1,2"
		if got := r.vm.Run(t, append(command, "/bin/sh", "-c", ask)...); string(got.Stdout) != "socket\t"+executed+"\n" {
			t.Errorf("executed %s: %s%s", name, got.Stdout, got.Stderr)
		}
	}
}

// expectAsked asks the two threads of a container.
func (r *restoring) expectAsked(t *testing.T, id, want string) {
	t.Helper()
	const ask = `root=/proc/$(runc --root "$0" state "$1" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/root
rm -f $root/tmp/said
touch $root/tmp/ask
until [ -e $root/tmp/said ]; do sleep .1; done
cat $root/tmp/said`
	if got := r.vm.Output(t, "sh", "-ec", ask, r.direct()[2], id); got != want+" "+want {
		t.Errorf("the threads of %s say %q, want %s", id, got, want)
	}
}

// refuses expects that nothing comes back.
func (r *restoring) refuses(t *testing.T, got Result, id, want string) {
	t.Helper()
	if got.Exit == 0 || !strings.Contains(string(got.Stderr), want) {
		t.Errorf("exit status %d, want a refusal with %q\n%s", got.Exit, want, got.Stderr)
	}
	if r.vm.Run(t, r.direct("state", id)...).Exit == 0 {
		t.Errorf("%s is there", id)
	}
}

func (r *restoring) remove(t *testing.T, id string) {
	t.Helper()
	r.vm.Output(t, r.direct("delete", "--force", id)...)
}

// testClosed: what was closed stays so, on its way through the wrapper.
func (r *restoring) testClosed(t *testing.T) {
	r.policy(t, "refuse")
	bundle := r.bundle(t, allowAll, nil)
	r.start(t, r.command, bundle, "closed")
	r.expectAsked(t, "closed", "EAFNOSUPPORT")
	images := r.checkpoint(t, "closed")
	got := r.restore(t, r.command, images, bundle, "closed")
	r.restores(t, got, images, "closed", "EAFNOSUPPORT", "closed")
	pid := r.vm.Output(t, "sh", "-c", strings.Join(r.direct("state", "closed"), " ")+` | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'`)
	if got := r.vm.Run(t, installed, "verify", "--pid", pid); got.Exit != 0 {
		t.Errorf("verify --pid: exit status %d\n%s%s", got.Exit, got.Stdout, got.Stderr)
	}
	r.remove(t, "closed")
}

// testOpen is the attack: the spec is closed, and the processes are not.
func (r *restoring) testOpen(t *testing.T) {
	r.policy(t, "refuse")
	bundle := r.bundle(t, allowAll, nil)
	r.start(t, r.direct, bundle, "open")
	images := r.checkpoint(t, "open")
	r.refuses(t, r.restore(t, r.command, images, bundle, "open"), "open", "a process was under a filter by which socket on x86-64 reaches AF_ALG")
	r.policy(t, "allow")
	r.refuses(t, r.restore(t, r.command, images, bundle, "open"), "open", "a process was under a filter by which")
	r.vm.Output(t, "chmod", "777", images)
	r.refuses(t, r.restore(t, r.command, images, bundle, "open"), "open", "can be written by others (mode 0777), who could change it before the runtime reads it")
	r.vm.Output(t, "chmod", "700", images)
	r.restores(t, r.restore(t, r.direct, images, bundle, "open"), images, "open", "open", "open")
	r.remove(t, "open")
}

// testUnfiltered: what had no filter has none, which the policy may allow.
func (r *restoring) testUnfiltered(t *testing.T) {
	free, filtered := r.bundle(t, "", nil), r.bundle(t, allowAll, nil)
	r.start(t, r.direct, free, "free")
	images := r.checkpoint(t, "free")
	for _, unconfined := range []string{"refuse", "harden"} {
		r.policy(t, unconfined)
		r.refuses(t, r.restore(t, r.command, images, filtered, "free"), "free", "a process was under no filter")
	}
	r.policy(t, "allow")
	// The spec is hardened all the same.
	r.restores(t, r.restore(t, r.command, images, filtered, "free"), images, "free", "open", "closed")
	r.remove(t, "free")
}

// testGate: a hook does not see the checkpoint, and lets through what the
// wrapper has seen.
func (r *restoring) testGate(t *testing.T) {
	r.policy(t, "refuse")
	gate := &specs.Hooks{CreateRuntime: []specs.Hook{{Path: installed, Args: []string{installed, "hook", "createRuntime", "--policy", agentPolicy}}}}
	bundle := r.bundle(t, string(harden(t, "none")), gate)
	r.start(t, r.direct, bundle, "gated")
	images := r.checkpoint(t, "gated")
	r.refuses(t, r.restore(t, r.direct, images, bundle, "gated"), "gated", "whose processes bring their own filters, and this hook cannot see them")
	r.restores(t, r.restore(t, r.command, images, bundle, "gated"), images, "gated", "EAFNOSUPPORT", "closed")
	r.remove(t, "gated")
}

// TestWideRestorePodman has Podman checkpoint a container before the policy is
// installed, and one after, and restore both.
func TestWideRestorePodman(t *testing.T) {
	all := engines()
	podman := all[slices.IndexFunc(all, func(e engine) bool { return e.name == "podman" })]
	podman.run = podman.others["runc"] // crun has no CRIU
	files := buildPlatforms(t, []engine{podman})
	t.Parallel()
	vm := bootPlatforms(t, podman.kernel)
	p := newPlatformTest(t, podman, vm, files)
	p.begin(t, files.archive)
	// checkpoint takes a container away, and restore brings it back.
	checkpoint := func(name string) {
		t.Helper()
		p.sleeping(t, workload{name: name})
		p.podman(t, 0, "container", "checkpoint", "--export=/srv/"+name+".tar", name)
		p.discard(t, name)
	}
	restore := func(name string, status int) string {
		t.Helper()
		return p.podman(t, status, "--runtime=runc", "container", "restore", "--import=/srv/"+name+".tar")
	}
	checkpoint("old")
	restore("old", 0)
	if r := vm.Run(t, installed, "verify", "--container", "old"); r.Exit != 1 {
		t.Errorf("without a policy: exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	p.discard(t, "old")
	p.installAll(t)
	if said := restore("old", 125); !strings.Contains(said, "a process was under a filter by which socket on x86-64 reaches AF_ALG") {
		t.Errorf("Podman says %s", said)
	}
	checkpoint("new")
	restore("new", 0)
	p.verify(t, "new")
	p.expectExec(t, "restored", p.exec("new"), inContainer, p.said(t, false))
	p.discard(t, "new")
}

// podman returns what Podman says.
func (p *platformTest) podman(t *testing.T, status int, args ...string) string {
	t.Helper()
	r := p.vm.Command(t, Command{Args: append([]string{"podman"}, args...), Timeout: 4 * time.Minute})
	if r.Exit != status {
		logs := p.vm.Run(t, "sh", "-c", "find /var/lib/containers /run/containers -name '*.log' -path '*userdata*' | xargs grep -h -C2 Error").Stdout
		t.Fatalf("podman %v: exit status %d\n%s%s\n%s", args, r.Exit, r.Stdout, r.Stderr, logs)
	}
	return both(r)
}
