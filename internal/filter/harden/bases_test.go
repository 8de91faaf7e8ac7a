package harden

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// podmanProfile is installed by Debian's golang-github-containers-common.
const podmanProfile = "/usr/share/containers/seccomp.json"

func testPlan(rules ...string) *plan.Plan {
	p := &plan.Plan{
		Name: "test", Digest: "sha256:0",
		SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: uint32(unix.EAFNOSUPPORT)},
		BindErrno:   plan.Errno{Name: "ENOENT", Number: uint32(unix.ENOENT)},
	}
	for _, name := range rules {
		p.Rules = append(p.Rules, policy.Rule{Name: name})
	}
	return p
}

// amd64 has the capabilities that Docker gives, podman's own set has fewer.
func hostOf(arch specs.Arch, caps ...string) profile.Host {
	return profile.Host{Arch: arch, Caps: caps}
}

func dockerBase(t testing.TB) []byte {
	t.Helper()
	return written(t, profile.Docker())
}

func noneBase(t testing.TB, arch specs.Arch) []byte {
	t.Helper()
	return written(t, profile.AllowAll(arch))
}

func written(t testing.TB, p *profile.Profile) []byte {
	t.Helper()
	b, err := jsontext.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// task is a base as it was written, and how it is hardened.
type task struct {
	Options
	base []byte
}

func (k task) run(p *plan.Plan) (*profile.Profile, []plan.Gap, error) {
	base, err := profile.Parse(k.base)
	if err != nil {
		return nil, nil, err
	}
	return Harden(p, base, k.Options)
}

// bases are real profiles, each for the hosts where it differs.
type base struct {
	name string
	src  []byte
	host profile.Host
}

func bases(t testing.TB) []base {
	docker, podman := dockerBase(t), readFile(t, podmanProfile)
	var all []base
	arches := []specs.Arch{
		specs.ArchX86_64, specs.ArchAARCH64, specs.ArchS390X, specs.ArchRISCV64, specs.ArchLOONGARCH64,
		specs.ArchPPC64LE, specs.ArchMIPS64, specs.ArchMIPSEL64,
	}
	if testing.Short() { // one of each byte order
		arches = []specs.Arch{specs.ArchX86_64, specs.ArchS390X}
	}
	for _, arch := range arches {
		short := profile.ShortName(arch)
		all = append(all,
			base{"docker/" + short, docker, hostOf(arch, profile.DefaultCaps()...)},
			base{"podman/" + short, podman, hostOf(arch, "CAP_CHOWN")},
			base{"none/" + short, noneBase(t, arch), hostOf(arch)})
	}
	return append(all,
		base{"podman/amd64 with CAP_AUDIT_WRITE", podman, hostOf(specs.ArchX86_64, profile.DefaultCaps()...)},
		base{"docker/amd64 privileged", docker, hostOf(specs.ArchX86_64, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF")},
		base{"docker/amd64 on 3.10", docker, profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps(), Kernel: "3.10"}},
	)
}

// programs are what the tests compiled. They ask for the same bases, hardened
// alike, at every level of every runtime.
var programs sync.Map

func compile(t testing.TB, p *profile.Profile, h profile.Host, o seccomp.Options) (cbpf.Filter, []afalg.ABI) {
	t.Helper()
	resolved, err := p.Resolve(h)
	if err != nil {
		t.Fatal(err)
	}
	o.Native = h.Arch
	key := fmt.Sprintf("%+v\n%s", o, encode(t, *resolved))
	kept, ok := programs.Load(key)
	if !ok {
		program, err := seccomp.Compile(resolved, o)
		if err != nil {
			t.Fatal(err)
		}
		kept, _ = programs.LoadOrStore(key, program)
	}
	program := kept.(*seccomp.Program)
	return cbpf.Filter{cbpf.Program(program.Insns)}, verify.Admitted(program)
}

func parse(t testing.TB, src []byte) *profile.Profile {
	t.Helper()
	p, err := profile.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// everyWay lists how a program may be made: each runtime at each level.
func everyWay() []seccomp.Options {
	var ways []seccomp.Options
	for _, r := range seccomp.Runtimes() {
		for _, level := range []int{1, 2} {
			ways = append(ways, seccomp.Options{Runtime: r, Level: level})
		}
	}
	return ways
}

func compileFor(p *profile.Profile, h profile.Host, r seccomp.Runtime) (*seccomp.Program, error) {
	resolved, err := p.Resolve(h)
	if err != nil {
		return nil, err
	}
	return seccomp.Compile(resolved, seccomp.Options{Runtime: r, Native: h.Arch})
}
