package verify_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
	"github.com/afalg-policy/afalg-policy/policies"
)

// The kernel is the last oracle. Children install filters and make calls with
// the very registers. A program below the filters answers the calls that pass,
// in the kernel's place, so that nothing is done, and a kernel without AF_ALG
// or x32 will do.

// kernelProgram builds the program that asks, once.
var kernelProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "oracle")
	return path, oracle.Build(path)
})

func TestMain(m *testing.M) {
	release := seccomp.Keep()
	status := m.Run()
	release()
	if path, err := kernelProgram(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(status)
}

func askKernel(t *testing.T, cases []oracle.Case) [][]oracle.Answer {
	t.Helper()
	program, err := kernelProgram()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := oracle.Ask(program, cases)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// namedProfile is a profile as a runtime gets it.
type namedProfile struct {
	name string
	*specs.LinuxSeccomp
}

var amd64Host = profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()}

const podmanProfile = "/usr/share/containers/seccomp.json" // of Debian's golang-github-containers-common

// bases are shipped profiles, by the name of their distributor.
func bases(t *testing.T) map[string][]byte {
	t.Helper()
	docker, err := json.Marshal(mobyseccomp.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	podman, err := os.ReadFile(podmanProfile)
	if err != nil {
		t.Fatalf("%v: run scripts/install test", err)
	}
	none, err := jsontext.Encode(profile.AllowAll(specs.ArchX86_64))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"docker": docker, "podman": podman, "none": none}
}

var baseNames = []string{"docker", "podman", "none"}

// hardenedProfiles closes AF_ALG in each base.
func hardenedProfiles(t *testing.T) []namedProfile {
	t.Helper()
	p, _, err := plan.Load("builtin:baseline", func(name string) ([]byte, error) {
		return policies.Read(strings.TrimPrefix(name, policy.BuiltinPrefix))
	})
	if err != nil {
		t.Fatal(err)
	}
	all := bases(t)
	var list []namedProfile
	for _, name := range baseNames {
		base, err := profile.Parse(all[name])
		if err != nil {
			t.Fatal(err)
		}
		hardened, _, err := harden.Harden(p, base, harden.Options{Socketcall: harden.SocketcallDeny, Host: amd64Host})
		if err != nil {
			t.Fatal(err)
		}
		resolved, err := hardened.Resolve(amd64Host)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, namedProfile{name + ", hardened", resolved})
	}
	return list
}

func resolve(t *testing.T, src []byte) *specs.LinuxSeccomp {
	t.Helper()
	conditional, err := profile.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	p, err := conditional.Resolve(amd64Host)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// handWritten are the shapes that people write, faults and all.
func handWritten() []namedProfile {
	errno := uint(unix.EAFNOSUPPORT)
	all := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	rule := func(action specs.LinuxSeccompAction, name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		r := specs.LinuxSyscall{Names: []string{name}, Action: action, Args: args}
		if action == specs.ActErrno {
			r.ErrnoRet = &errno
		}
		return r
	}
	deny := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return rule(specs.ActErrno, name, args...)
	}
	allow := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return rule(specs.ActAllow, name, args...)
	}
	arg := func(op specs.LinuxSeccompOperator, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Op: op, Value: v}
	}
	low := specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 0xffffffff, ValueTwo: 38}
	profile := func(name string, def specs.LinuxSeccompAction, arches []specs.Arch, rules ...specs.LinuxSyscall) namedProfile {
		return namedProfile{name, &specs.LinuxSeccomp{DefaultAction: def, Architectures: arches, Syscalls: rules}}
	}
	eq, ne, lt, gt := specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpGreaterThan
	return []namedProfile{
		profile("equal on 64 bits", specs.ActAllow, all, deny("socket", arg(eq, 38))),
		profile("equal, one ABI", specs.ActAllow, nil, deny("socket", arg(eq, 38))),
		profile("masked, with socketcall", specs.ActAllow, all, deny("socket", low), deny("socketcall")),
		profile("masked, killed", specs.ActAllow, all, rule(specs.ActKillProcess, "socket", low), rule(specs.ActTrap, "socketpair", low)),
		profile("logged", specs.ActAllow, all, rule(specs.ActLog, "socket", low), rule(specs.ActTrace, "socketpair", low)),
		profile("not equal, in a default denial", specs.ActErrno, all, allow("socket", arg(ne, 38)), allow("exit_group")),
		profile("not equal to both", specs.ActErrno, all, allow("socket", arg(ne, 38), arg(ne, 40))),
		profile("around it", specs.ActErrno, all, allow("socket", arg(lt, 38)), allow("socket", arg(gt, 38)), deny("socketcall")),
		profile("wider beside", specs.ActErrno, all, deny("socket", arg(eq, 38)), allow("socket", specs.LinuxSeccompArg{Index: 1, Op: specs.OpLessEqual, Value: 1 << 40})),
		profile("nothing", specs.ActAllow, all),
		profile("default kill", specs.ActKillProcess, all, allow("exit_group")),
	}
}

// compiled returns the distinct programs that the runtimes load.
func compiled(t *testing.T, p *specs.LinuxSeccomp) []cbpf.Filter {
	t.Helper()
	var list []cbpf.Filter
	seen := map[string]bool{}
	for _, runtime := range seccomp.Runtimes() {
		c, err := seccomp.Compile(p, seccomp.Options{Runtime: runtime, Native: specs.ArchX86_64})
		if err != nil {
			t.Fatal(err)
		}
		if key := string(cbpf.Program(c.Insns).Bytes(cbpf.Little)); !seen[key] {
			seen[key] = true
			list = append(list, cbpf.Filter{c.Insns})
		}
	}
	return list
}

var machine = afalg.Machine(string(specs.ArchX86_64))

// forEachKind runs a test of the ABIs that the kernel has, those of 64 bits and
// that of 32.
func forEachKind(t *testing.T, test func(t *testing.T, abis []afalg.ABI)) {
	is32 := func(abi afalg.ABI) bool { return abi.Kind == afalg.Compat }
	t.Run("64-bit", func(t *testing.T) { test(t, slices.DeleteFunc(slices.Clone(machine), is32)) })
	t.Run("i386", func(t *testing.T) {
		kerneltest.NeedI386(t)
		test(t, slices.DeleteFunc(slices.Clone(machine), func(abi afalg.ABI) bool { return !is32(abi) }))
	})
}

// TestKernelAgrees makes the calls of the witness of every open verdict, and
// samples of every call whatever its verdict, under the profiles that people
// use.
func TestKernelAgrees(t *testing.T) {
	all := append(hardenedProfiles(t), handWritten()...)
	for name, src := range bases(t) {
		all = append(all, namedProfile{name, resolve(t, src)})
	}
	filters := make([][]cbpf.Filter, len(all))
	for i, p := range all {
		filters[i] = compiled(t, p.LinuxSeccomp)
	}
	forEachKind(t, func(t *testing.T, abis []afalg.ABI) {
		witnesses, samples := 0, 0
		for i, p := range all {
			t.Run(p.name, func(t *testing.T) {
				for _, f := range filters[i] {
					w, s := kernelAgrees(t, f, abis)
					witnesses, samples = witnesses+w, samples+s
				}
			})
		}
		t.Logf("%d witnesses and %d samples", witnesses, samples)
		if witnesses < 40 || samples < 15000 {
			t.Error("too few to mean anything")
		}
	})
}

// judged is a call, and whether verify says that no such call passes.
type judged struct {
	verify.Verdict
	data   cbpf.Data
	closed bool
}

func kernelAgrees(t *testing.T, f cbpf.Filter, abis []afalg.ABI) (witnesses, samples int) {
	t.Helper()
	verdicts, err := verify.Routes(f, abis, afalg.Family, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(uint64(len(f[0])), 1))
	var calls []judged
	for _, v := range verdicts {
		if v.Witness != nil {
			calls = append(calls, judged{v, *v.Witness, false})
			witnesses++
		}
		region := verify.RegionOf(v.Call)
		for range 40 {
			calls = append(calls, judged{v, sample(random, region), v.State == verify.Closed})
			calls = append(calls, judged{v, sample(random, cbpf.Region{cbpf.Arch: region[cbpf.Arch], cbpf.Nr: region[cbpf.Nr]}), false})
		}
	}
	for range 400 {
		calls = append(calls, judged{data: anyCall(random, abis)})
	}
	calls = spareLives(t, f, calls)
	compareWithKernel(t, f, calls)
	return witnesses, len(calls) - witnesses
}

// spareLives leaves out most of the calls that kill: each takes a new process.
func spareLives(t *testing.T, f cbpf.Filter, calls []judged) []judged {
	lives := 40
	return slices.DeleteFunc(calls, func(c judged) bool {
		action, _, err := f.Run(c.data, cbpf.Little)
		if err != nil {
			t.Fatal(err)
		}
		switch action.Kind() {
		case cbpf.KillProcess, cbpf.KillThread, cbpf.Trap:
			lives--
		}
		return lives < 0 && action.Kind() <= cbpf.Trap
	})
}

func compareWithKernel(t *testing.T, f cbpf.Filter, calls []judged) {
	t.Helper()
	var data []cbpf.Data
	for _, c := range calls {
		data = append(data, c.data)
	}
	for i, got := range askKernel(t, []oracle.Case{oracle.Judged(f, data)})[0] {
		c := calls[i]
		action, _, err := f.Run(c.data, cbpf.Little)
		if err != nil {
			t.Fatal(err)
		}
		passed := got.Errno() == oracle.Gated
		isWitness := c.Witness != nil && c.data == *c.Witness
		switch {
		case !oracle.Agrees(action, got):
			t.Errorf("%v: the kernel answers %v, the interpreter %v", c.data, got, action)
		case c.closed && passed:
			t.Errorf("%v: closed, but the kernel lets it through", c.data)
		case isWitness && !passed:
			t.Errorf("%v: the witness for %v, but the kernel answers %v", c.data, c.State, got)
		}
	}
}

// sample makes a call of a region; an argument may be a family, a small
// number, or anything.
func sample(random *rand.Rand, r cbpf.Region) cbpf.Data {
	for {
		var d cbpf.Data
		for f := range cbpf.Field(cbpf.NumFields) {
			if f < cbpf.IPHigh {
				d.Set(f, interesting(random))
			}
		}
		for f, c := range r {
			if f := cbpf.Field(f); !c.Contains(d.Get(f)) {
				d.Set(f, bend(c))
			}
		}
		if r.Contains(d) {
			return d
		}
	}
}

// bend returns a value that meets a constraint of the routes: they are for one
// value, or for every other.
func bend(c cbpf.Constraint) uint32 {
	for v := uint32(0); v < 1024; v++ {
		if c.Contains(v) {
			return v
		}
	}
	for _, a := range afalg.ABIs() {
		for _, v := range []uint32{a.Audit, a.Bit | a.Socket, a.Bit | a.Socketpair, a.Bit | a.Socketcall, a.Bit | a.IOUring, a.Bit | (a.IOUring + 1), a.Bit | (a.IOUring + 2)} {
			if c.Contains(v) {
				return v
			}
		}
	}
	return 0
}

func interesting(random *rand.Rand) uint32 {
	switch random.IntN(5) {
	case 0:
		return uint32(random.IntN(64))
	case 1:
		return 38
	case 2:
		return 1 << random.IntN(32)
	case 3:
		return random.Uint32()
	}
	return 0
}

// own lists the x86-64 numbers that cannot be tested: those that the testing
// program needs under the filters, and uretprobe and uprobe, for which the
// kernel runs no filter (Linux 6.14; seccomp_run_filters is not reached).
var own = map[uint32]bool{unix.SYS_PRCTL: true, unix.SYS_SECCOMP: true, unix.SYS_EXIT_GROUP: true, 335: true, 336: true}

// anyCall is a call of one of the ABIs, with any arguments.
func anyCall(random *rand.Rand, abis []afalg.ABI) cbpf.Data {
	abi := abis[random.IntN(len(abis))]
	d := sample(random, cbpf.Region{cbpf.Arch: cbpf.Exactly(abi.Audit), cbpf.Nr: cbpf.Exactly(0)})
	d.Nr = abi.Bit | uint32(random.IntN(470))
	if own[d.Nr] && abi.Kind == afalg.Native {
		return anyCall(random, abis)
	}
	return d
}

// An oracle that always agrees would be none.
func TestKernelOracleCanFail(t *testing.T) {
	filter := compiled(t, handWritten()[0].LinuxSeccomp)[0]
	socket := cbpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: unix.SYS_SOCKET, Args: [6]uint64{38}}
	high := socket
	high.Args[0] |= 1 << 32
	got := askKernel(t, []oracle.Case{oracle.Judged(filter, []cbpf.Data{socket, high})})[0]
	want := []string{"EAFNOSUPPORT", fmt.Sprint(-int64(oracle.Gated))}
	for i := range want {
		if got[i].String() != want[i] {
			t.Errorf("call %d: %v, want %s", i, got[i], want[i])
		}
	}
	allow := cbpf.Action(unix.SECCOMP_RET_ALLOW)
	if oracle.Agrees(allow, got[0]) || !oracle.Agrees(allow, got[1]) {
		t.Error("the oracle agrees with anything")
	}
}
