//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// grantedPolicy lets everybody on the host use one algorithm, and of the containers
// those named granted, by the kernel half. Others need an agent, which is not
// there.
const grantedPolicy = `version: 1
name: kernel-half
allow:
  - rule: digest
    anyone: true
    algorithms: {hash: ["hmac(sha512)"]}
containers:
  unconfined: lsm
  grants:
    - {rules: [digest], names: [granted], decided-by: lsm}
    - {rules: [digest], names: [brokered]}
`

// uses asks for the algorithm of the rule, and for another one.
const uses = `printf key | kcapi-dgst -c 'hmac(sha512)' --keyfd 0 --hex -i /etc/debian_version 2>&1
kcapi-dgst -c sha256 --hex -i /etc/debian_version 2>&1
true`

// nested moves into a cgroup below that of the container first.
const nested = `mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg && d=/tmp/cg$(cut -d: -f3 /proc/self/cgroup)/a/b &&
mkdir -p $d && echo $$ >$d/cgroup.procs && grep -q '/a/b$' /proc/self/cgroup || exit 9
` + uses

// TestLongKernelHalfContainers starts containers under the kernel half, with no
// broker anywhere: on the newest kernel, since what differs between kernels is
// asked by TestLongGuard, and a second machine takes minutes.
func TestLongKernelHalfContainers(t *testing.T) {
	files := buildPlatforms(t, nil)
	t.Parallel()
	for _, version := range Kernels() {
		if !newest(version) {
			continue
		}
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testKernelHalfContainers(t, bootPlatforms(t, version), version, files)
		})
	}
}

func testKernelHalfContainers(t *testing.T, vm *VM, version string, files platformFiles) {
	vm.WriteFile(t, agentPolicy, []byte(grantedPolicy), 0o644)
	root := vm.HostRoot(t)
	var all []halfRuntime
	for _, runtime := range Runtimes() {
		all = append(all, halfRuntime{vm: vm, runtime: runtime, root: root})
	}
	for _, h := range all {
		t.Run(h.runtime+", without", h.testWithout)
	}
	load(t, vm)
	for _, h := range all {
		t.Run(h.runtime, h.testWith)
	}
	vm.Output(t, installed, "lsm", "unload")

	engine := engines()[slices.IndexFunc(engines(), func(e engine) bool { return e.kernel == version })]
	p := newPlatformTest(t, engine, vm, files)
	p.start(t, vm, files.archive)
	vm.WriteFile(t, openBase, []byte(allowAll), 0o644)
	t.Run(p.name+" asks for the gap", func(t *testing.T) {
		r := vm.Run(t, installed, "install", p.platform, "--base", openBase)
		if r.Exit != 1 || !bytes.Contains(r.Stderr, []byte("(accept with --accept decided-by-lsm)")) {
			t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
		}
	})
	for _, platform := range append(p.also, p.platform) {
		flags := []string{"--accept", "decided-by-lsm"}
		if platform == p.platform {
			flags = append(flags, "--base", openBase)
		}
		p.install(t, platform, flags...)
	}
	t.Run(p.name+", without", func(t *testing.T) { testKernelHalfMissing(t, p) })
	load(t, vm)
	t.Run(p.name, func(t *testing.T) { testKernelHalfPlatform(t, p) })
	t.Run("unloaded", func(t *testing.T) { testKernelHalfUnloaded(t, p) })
}

// openBase is a profile in the place of the platform's, which takes an emulated
// machine minutes to harden.
const openBase = "/etc/open.json"

func load(t *testing.T, vm *VM) {
	t.Helper()
	r := vm.Command(t, Command{Args: []string{installed, "lsm", "load", agentPolicy}, Timeout: 5 * time.Minute})
	if r.Exit != 0 {
		t.Fatalf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// halfRuntime is a runtime behind the wrapper.
type halfRuntime struct {
	vm            *VM
	runtime, root string
}

// freeContainer is a container that a seccomp profile does not reach.
type freeContainer struct {
	name   string
	host   bool // it has no PID and no cgroup namespace of its own
	script string
}

var freeContainers = []freeContainer{
	{"privileged", false, uses},
	{"like the host", true, uses},
	{"nested", false, nested},
	{"nested like the host", true, nested},
}

// run starts a container without a profile, with every capability.
func (h halfRuntime) run(t *testing.T, id string, a freeContainer, before ...string) Result {
	t.Helper()
	text, err := Container{Rootfs: h.root, Args: []string{"sh", "-c", a.script}}.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	might := []string{"CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: might, Effective: might, Permitted: might}
	if a.host {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
			return n.Type == specs.PIDNamespace || n.Type == specs.CgroupNamespace
		})
	}
	return h.start(t, id, spec, before...)
}

func (h halfRuntime) start(t *testing.T, id string, spec specs.Spec, before ...string) Result {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	bundle := h.vm.Next("bundle")
	h.vm.WriteFile(t, bundle+"/config.json", text, 0o644)
	args := append(slices.Clone(before), h.runtime, "run", "--bundle", bundle, id)
	if len(before) > 0 {
		args = append(slices.Clone(before), "run", "--bundle", bundle, id)
	}
	return h.vm.Command(t, Command{Args: args, Timeout: 3 * time.Minute})
}

func (h halfRuntime) wrapper(more ...string) []string {
	return slices.Concat([]string{installed, "runtime", "--policy", agentPolicy, "--decision-log", containerLog}, more, []string{"--runtime-path", h.runtime, "--"})
}

var accepting = []string{"--accept", "decided-by-lsm"}

func (h halfRuntime) says(t *testing.T, what string, r Result, want string) {
	t.Helper()
	if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", what, r.Exit, d, r.Stderr)
	}
}

// testWithout is the control: the attacks reach AF_ALG, and the wrapper lets none
// of it start.
func (h halfRuntime) testWithout(t *testing.T) {
	free := wantDigest(t, h.vm) + sum([]byte(h.vm.Output(t, "cat", "/etc/debian_version")+"\n"))
	for _, a := range freeContainers {
		h.says(t, a.name, h.run(t, "free", a), free)
	}
	r := h.run(t, "free", freeContainers[0], h.wrapper()...)
	refusedWith(t, "privileged", r, "the policy leaves unconfined containers to the kernel half, and that is not in force here (see lsm status): no policy is loaded in the kernel")
	r = h.start(t, "granted", h.ordinary(t, uses), h.wrapper(accepting...)...)
	refusedWith(t, "granted", r, "the policy leaves the rules of this container (decided-by: lsm) to the kernel half, and that is not in force here")
}

func refusedWith(t *testing.T, what string, r Result, want string) {
	t.Helper()
	if r.Exit == 0 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte(want)) {
		t.Errorf("%s: exit status %d, and it says %q\n%s", what, r.Exit, r.Stdout, r.Stderr)
	}
}

// ordinary has a profile that closes nothing by itself.
func (h halfRuntime) ordinary(t *testing.T, script string) (spec specs.Spec) {
	t.Helper()
	text, err := Container{Rootfs: h.root, Args: []string{"sh", "-c", script}, Seccomp: []byte(allowAll)}.Spec()
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func (h halfRuntime) testWith(t *testing.T) {
	granted, denied := wantDigest(t, h.vm)+noBind, noSocket+noSocket
	for _, a := range freeContainers {
		h.says(t, a.name, h.run(t, "free", a, h.wrapper()...), denied)
		h.says(t, a.name+", granted", h.run(t, "granted", a, h.wrapper(accepting...)...), granted)
	}
	h.says(t, "granted", h.start(t, "granted", h.ordinary(t, uses), h.wrapper(accepting...)...), granted)
	h.says(t, "ordinary", h.start(t, "ordinary", h.ordinary(t, uses), h.wrapper(accepting...)...), denied)
	r := h.start(t, "granted", h.ordinary(t, uses), h.wrapper()...)
	refusedWith(t, "nobody took the gap on", r, "install again with --accept decided-by-lsm")
	r = h.start(t, "brokered", h.ordinary(t, uses), h.wrapper(accepting...)...)
	refusedWith(t, "by the agent", r, "no agent answers on ")

	// The runtime is in the cgroup too, and others might be.
	shared := h.ordinary(t, uses)
	shared.Linux.CgroupsPath = "/shared"
	inside := []string{"sh", "-c", `mkdir -p /sys/fs/cgroup/shared && echo $$ >/sys/fs/cgroup/shared/cgroup.procs && exec "$@"`, "sh"}
	r = h.start(t, "granted", shared, append(inside, h.wrapper(accepting...)...)...)
	if r.Exit == 0 || len(r.Stdout) > 0 {
		t.Errorf("in the cgroup of others: exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// testKernelHalfMissing: what relies on the kernel half does not start without.
func testKernelHalfMissing(t *testing.T, p *platformTest) {
	for _, c := range []workload{{name: "granted"}, {name: "mighty", options: []string{"--privileged"}}} {
		c.args = []string{"echo", "up"}
		refusedWith(t, c.name, p.try(t, p.vm, c), "not in force here (see lsm status): no policy is loaded in the kernel")
		p.vm.Run(t, append(slices.Clone(p.remove), c.name)...)
	}
}

func testKernelHalfPlatform(t *testing.T, p *platformTest) {
	granted, denied := wantDigest(t, p.vm)+noBind, noSocket+noSocket
	like := []string{"--privileged", "--pid=host", "--cgroupns=host"}
	for _, tt := range []struct {
		c    workload
		want string
	}{
		{workload{name: "granted"}, granted},
		{workload{name: "granted", options: []string{"--privileged"}}, granted},
		{workload{name: "granted", options: like}, granted},
		{workload{name: "ordinary"}, denied},
		{workload{name: "mighty", options: []string{"--privileged"}}, denied},
		{workload{name: "likely", options: like}, denied},
		{workload{name: "looking", options: like[1:]}, denied},
	} {
		p.says(t, tt.c, uses, outcome{tt.want, false})
	}
}

// testKernelHalfUnloaded: a container that relies on what is gone is named.
func testKernelHalfUnloaded(t *testing.T, p *platformTest) {
	p.sleeping(t, workload{name: "granted"})
	status := []string{installed, "status", "--no-probe", p.platform}
	const relies = "relies on the kernel half, and that is not in force"
	if r := p.vm.Run(t, status...); bytes.Contains(r.Stderr, []byte(relies)) {
		t.Errorf("in force:\n%s", r.Stderr)
	}
	p.vm.Output(t, installed, "lsm", "unload")
	if r := p.vm.Run(t, status...); r.Exit != 1 || !bytes.Contains(r.Stderr, []byte(relies)) {
		t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
	}
	p.discard(t, "granted")
	testKernelHalfMissing(t, p)
}
