//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mobyseccomp "github.com/moby/profiles/seccomp"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const classPolicy = "/opt/classes/policy.yaml"

// classRules close what testdata/clients/classes.c tries, and give a part of it
// to who holds a rule.
const classRules = `version: 1
name: classes
deny:
  presets: [page-cache]
  families: [AF_PACKET]
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - {rule: ipsec, anyone: true, sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]}
  - {rule: sandbox, anyone: true, user-namespaces: true}
`

// Ways of testdata/clients/classes.c by which something is open.
const (
	everyWay   = "socket flags upper-halves upper-half-of-type upper-half-of-protocol i386 socketcall x32 socketpair socketcall-pair"
	scalarWays = "socket flags upper-halves upper-half-of-type upper-half-of-protocol i386 x32 socketpair" // without socketcall
	dockerWays = "socket flags upper-half-of-type upper-half-of-protocol i386 socketcall x32 socketpair socketcall-pair"
	madeWays   = "clone clone-upper-half clone3 unshare i386-clone i386-clone3 i386-unshare x32-clone x32-unshare"
	noClone3   = "clone clone-upper-half unshare i386-clone i386-unshare x32-clone x32-unshare"
	setWays    = "setsockopt upper-halves i386 socketcall x32"
)

// open says by which ways each class is open.
type open map[string]string

// openFree is the answer without us.
var openFree = open{
	"stream": everyWay, "route": everyWay + " bind", "none": madeWays,
	"xfrm": everyWay + " bind", "xfrm-datagram": everyWay, "key": everyWay, "packet": everyWay, "packet-of-inet": everyWay,
	"ulp": setWays, "user": madeWays,
}

// openDocker is the answer under Docker's own profile: it closes user namespaces,
// and no other class.
var openDocker = open{
	"stream": dockerWays, "route": dockerWays + " bind", "none": "clone clone-upper-half i386-clone x32-clone",
	"xfrm": dockerWays + " bind", "xfrm-datagram": dockerWays, "packet": dockerWays, "packet-of-inet": dockerWays, "ulp": setWays,
}

// openClosed is the answer where the policy is in force.
var openClosed = open{"stream": scalarWays, "route": scalarWays + " bind", "none": noClone3}

func (o open) with(more open) open {
	all := open{}
	for _, m := range []open{o, more} {
		for class, ways := range m {
			all[class] = ways
		}
	}
	return all
}

func (o open) without(class string) open {
	less := o.with(nil)
	delete(less, class)
	return less
}

// buildClasses builds the program.
func buildClasses(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "classes")
	compile(t, binary, "-static", "-Wextra", "../../testdata/clients/classes.c")
	return binary
}

// testClassAttacks tries each denied class by every way into the kernel, without us
// and under each thing that closes it.
func testClassAttacks(t *testing.T, vm *VM, version, binary string) {
	vm.Output(t, "install", "-D", binary, "/opt/classes/classes")
	vm.WriteFile(t, classPolicy, []byte(classRules), 0o644)
	rootfs := vm.Rootfs(t, map[string]string{"/classes": binary, "/afalg-policy": program(t)})
	own := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(own, []byte(classRules), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(mobyseccomp.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	shipped := resolve(t, data)
	seccomp := func(args ...string) []byte { return generate(t, append([]string{"seccomp", own}, args...)...) }
	run := func(args ...string) func() Result {
		return func() Result {
			return vm.Run(t, slices.Concat([]string{program(t), "run", classPolicy}, args, []string{"--", "/opt/classes/classes"})...)
		}
	}
	container := func(runtime string, profile []byte) func() Result {
		return func() Result {
			return vm.Container(t, Container{Runtime: runtime, Rootfs: rootfs, Seccomp: profile, Args: []string{"/classes"}})
		}
	}
	// Docker's profile refuses upper halves of what it compares, and unshare. It
	// lets the whole class through but user namespaces.
	docker := open{
		"stream": "socket flags upper-half-of-protocol i386 x32 socketpair", "route": "socket flags upper-half-of-type i386 x32 socketpair bind",
		"none": "clone clone-upper-half i386-clone x32-clone",
	}
	ipsec := open{"xfrm": scalarWays + " bind", "xfrm-datagram": scalarWays}
	for _, test := range []struct {
		name string
		ask  func() Result
		want open
	}{
		{"free", func() Result { return vm.Run(t, "/opt/classes/classes") }, openFree},
		{"run", run(), openClosed},
		{"run, granted", run("--grant", "ipsec", "--grant", "sandbox"), openClosed.with(ipsec).with(open{"none": madeWays, "user": madeWays})},
		{"run, 32-bit sockets", run("--socketcall", "broker"), openClosed.with(open{"stream": everyWay, "route": everyWay + " bind"})},
		{"runc, free", container("runc", nil), openFree.without("key")}, // CAP_NET_ADMIN
		{"runc, docker's", container("runc", shipped), openDocker},
		{"runc, closed", container("runc", seccomp("--base", "none")), openClosed},
		{"runc, docker's closed", container("runc", seccomp()), docker},
		{"runc behind the wrapper", behindWrapper(t, vm, Container{Rootfs: rootfs, Seccomp: allowEveryABI, Args: []string{"/classes"}}), openClosed},
		{"crun, closed", container("crun", seccomp("--base", "none", "--grant", "ipsec")), openClosed.with(ipsec)},
	} {
		t.Run(test.name, func(t *testing.T) { compareClasses(t, test.want, test.ask()) })
	}
	if newest(version) { // it takes as long as the rest
		t.Run("probe", func(t *testing.T) { testProbeClasses(t, vm) })
	}
}

// allowEveryABI is a profile that closes nothing.
var allowEveryABI = json.RawMessage(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]}`)

// behindWrapper runs a container as a platform does on which the wrapper is
// installed.
func behindWrapper(t *testing.T, vm *VM, c Container) func() Result {
	t.Helper()
	config, err := c.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return func() Result {
		bundle := vm.Next("bundle")
		vm.WriteFile(t, bundle+"/config.json", config, 0o644)
		return vm.Run(t, program(t), "runtime", "--policy", classPolicy, "--runtime-path", "runc", "--",
			"--root", wire.RunDir+"/runc", "run", "--bundle", bundle, "classes")
	}
}

// compareClasses compares what the program printed.
func compareClasses(t *testing.T, want open, r Result) {
	t.Helper()
	got := open{}
	for line := range strings.Lines(string(r.Stdout)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			t.Fatalf("%q in\n%s%s", line, r.Stdout, r.Stderr)
		}
		class, way, answer := fields[0], fields[1], fields[2]
		reached := answer == "ok" || answer == "ENOENT" && class == "ulp" || answer == "EOPNOTSUPP" && strings.HasSuffix(way, "pair")
		if reached {
			got[class] = strings.TrimSpace(got[class] + " " + way)
		}
	}
	if d := cmp.Diff(want, got); d != "" || r.Exit != 0 {
		t.Errorf("exit status %d, -want +got:\n%s\n%s%s", r.Exit, d, r.Stdout, r.Stderr)
	}
}

// testProbeClasses: the prober finds open what is, closed what is, and loads no
// module.
func testProbeClasses(t *testing.T, vm *VM) {
	before := vm.Output(t, "lsmod")
	probe := []string{program(t), "probe", "--route", "inherited", "--policy", classPolicy}
	free := vm.Run(t, probe...)
	if after := vm.Output(t, "lsmod"); after != before {
		t.Errorf("modules: %s", cmp.Diff(before, after))
	}
	closed := vm.Run(t, slices.Concat([]string{program(t), "run", classPolicy, "--"}, probe)...)
	for _, class := range []string{"AF_KEY", "AF_PACKET", "AF_RDS", "AF_RXRPC", "AF_INET type SOCK_PACKET", "AF_NETLINK protocol NETLINK_XFRM", "TCP_ULP of SOL_TCP", "user namespaces"} {
		if v := verdictOf(free, class); v != "open" && v != "loadable" {
			t.Errorf("%s is %q without us\n%s", class, v, free.Stdout)
		}
		if v := verdictOf(closed, class); v != "closed" {
			t.Errorf("%s is %q under run\n%s", class, v, closed.Stdout)
		}
	}
	if free.Exit != 1 || closed.Exit != 0 {
		t.Errorf("exit statuses %d and %d, want 1 and 0", free.Exit, closed.Exit)
	}
}

func verdictOf(r Result, class string) string {
	for line := range strings.Lines(string(r.Stdout)) {
		if cells := strings.Split(line, "\t"); len(cells) > 2 && cells[0] == class {
			return cells[1]
		}
	}
	return fmt.Sprintf("nothing, exit status %d", r.Exit)
}
