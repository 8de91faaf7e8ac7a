package harden

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
)

// presetPlan denies presets besides AF_ALG.
func presetPlan(t testing.TB, presets ...string) *plan.Plan {
	t.Helper()
	p := testPlan()
	for _, preset := range presets {
		for _, c := range policy.ClassesOf(preset) {
			if c.Socket == nil {
				t.Fatalf("%s is no class of sockets", c)
			}
			if class := c.Socket.Class(); class.Whole() {
				p.Families = append(p.Families, policy.Family{Name: c.Socket.Family, Number: class.Family})
			} else {
				p.Sockets = append(p.Sockets, *c.Socket)
			}
		}
	}
	return p
}

// manyClasses denies a class of every kind.
func manyClasses() *plan.Plan {
	p := testPlan()
	p.Families = []policy.Family{{Name: "AF_SMC", Number: 43}, {Name: "AF_PACKET", Number: 17}}
	p.Sockets = []policy.Socket{
		{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"}, {Family: "AF_NETLINK", Protocol: "NETLINK_NETFILTER"},
		{Family: "AF_INET", Type: "SOCK_RAW"}, {Family: "AF_INET6", Type: "SOCK_STREAM", Protocol: "IPPROTO_SCTP"},
		{Family: "AF_BLUETOOTH", Type: "SOCK_DGRAM"},
	}
	p.SocketOptions = []policy.SocketOption{{Level: "SOL_TCP", Option: "TCP_ULP"}, {Level: "SOL_SOCKET", Option: "SO_ATTACH_BPF"}, {Level: "SOL_ALG", Option: "1"}}
	p.UserNamespaces = true
	return p
}

// TestClassesClosed: Harden proves what it returns, so that no error is the
// proof. The machines are those that differ: in byte order, in the arguments of
// clone, in the numbers of types. TestLongClassesClosed has all.
func TestClassesClosed(t *testing.T) {
	t.Parallel()
	some := []string{"docker/amd64", "docker/s390x", "docker/mips64", "podman/amd64", "none/amd64", "none/s390x", "none/mips64"}
	for _, b := range bases(t) {
		if slices.Contains(some, b.name) {
			classesClosed(t, b, Options{})
		}
	}
	classesClosed(t, named(t, "docker/amd64"), Options{Broker: "/run/x.sock", Socketcall: SocketcallBroker})
	classesClosed(t, named(t, "none/amd64"), Options{Broker: "/run/x.sock"})
}

func TestLongClassesClosed(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		classesClosed(t, b, Options{})
	}
	for _, name := range []string{"docker/amd64", "podman/amd64"} {
		for _, o := range []Options{{Conditional: true}, {Broker: "/run/x.sock", Socketcall: SocketcallBroker}, {Broker: "/run/x.sock"}} {
			classesClosed(t, named(t, name), o)
		}
	}
}

// classesClosed hardens a base, and runs the programs besides.
func classesClosed(t *testing.T, b base, o Options) {
	t.Helper()
	o.Host = b.host
	hardened, _, err := task{o, b.src}.run(manyClasses())
	if err == nil {
		err = judgeClasses(parse(t, b.src), hardened, o)
	}
	if err != nil {
		t.Errorf("%s, broker %q %s: %v", b.name, o.Broker, o.Socketcall, err)
	}
}

// judgeClasses runs the programs of base and result on many inputs. It knows
// nothing of departures: what manyClasses closes is written down here once more.
func judgeClasses(base, hardened *profile.Profile, o Options) error {
	random := rand.New(rand.NewPCG(1, 2))
	after, err := compileFor(hardened, o.Host, seccomp.Crun) // which has no stub of its own
	if err != nil {
		return err
	}
	before, err := compileFor(base, o.Host, seccomp.Crun)
	if err != nil {
		return nil // no runtime loads the base: Harden has proved the result closed
	}
	for _, abi := range verify.Admitted(after) {
		for _, name := range []string{"socket", "socketpair", callSetsockopt, "clone", "unshare", "clone3", "bind", "read"} {
			nr, _ := numberOn(abi, name)
			for range 1500 {
				d := cbpf.Data{Arch: abi.Audit, Nr: nr}
				for i := range d.Args {
					d.Args[i] = nearby(random)
				}
				e := cbpf.EndianOf(abi.BigEndian())
				was, _, err := cbpf.Program(before.Insns).Run(d, e)
				if err != nil {
					return err
				}
				is, _, err := cbpf.Program(after.Insns).Run(d, e)
				if err != nil {
					return err
				}
				closed, blurred := treated(abi, name, d)
				brokered := o.Broker != "" && is.Kind() == cbpf.UserNotif
				switch {
				case closed && passes(is) && !(brokered && name == "socket" && uint32(d.Args[0]) == unix.AF_ALG):
					return fmt.Errorf("%s on %s: %v is %v", name, abi.Name, d, is)
				case passes(is) && !passes(was):
					if !brokered {
						return fmt.Errorf("%s on %s: %v was %v and is %v", name, abi.Name, d, was, is)
					}
				case !closed && !blurred && was.Effective() != is.Effective() && !brokered:
					return fmt.Errorf("%s on %s: %v was %v and is %v", name, abi.Name, d, was, is)
				}
			}
		}
	}
	return nil
}

// nearby is a value near those that manyClasses and profiles compare with.
func nearby(random *rand.Rand) uint64 {
	values := []uint64{
		0, 1, 2, 3, 5, 6, 9, 10, 12, 16, 17, 31, 38, 43, 46, 50, 132, 256, 279, 0xffff, 0x80003, 0x80803, 0x802, 0x83,
		unix.CLONE_NEWUSER, unix.CLONE_NEWUSER | 17, unix.CLONE_NEWNS, lowWord,
	}
	v := values[random.IntN(len(values))]
	switch random.IntN(12) {
	case 0:
		return random.Uint64()
	case 1:
		return v | uint64(random.Uint32())<<32
	}
	return v
}

// treated says what manyClasses closes, and where the result may refuse more
// than the base: high bits, and numbers that no kernel has.
func treated(abi afalg.ABI, name string, d cbpf.Data) (closed, blurred bool) {
	low := func(i int) uint32 { return uint32(d.Args[i]) }
	wide := func(i int) bool { return d.Args[i] >= lowWord }
	typ := low(1) & 0xf
	valid := low(1)&^uint32(0xf|unix.SOCK_CLOEXEC|abi.SocketNonblock()) == 0
	if typ == 1 || typ == 2 {
		if abi.SocketTypeOn(1) == 2 {
			typ = 3 - typ
		}
	}
	switch name {
	case "socket", "socketpair":
		switch low(0) {
		case unix.AF_ALG, unix.AF_PACKET, unix.AF_SMC:
			return true, true
		case unix.AF_NETLINK:
			return low(2) == 6 || low(2) == 12, wide(0) || wide(2)
		case unix.AF_INET:
			of := typ == unix.SOCK_RAW || typ == unix.SOCK_PACKET
			return of && valid || low(2) == 256, of || wide(0) || wide(1) || wide(2)
		case unix.AF_INET6:
			of := typ == unix.SOCK_STREAM && low(2) == 132
			return of && valid || low(2) == 256, of || wide(0) || wide(1) || wide(2)
		case unix.AF_BLUETOOTH:
			return typ == unix.SOCK_DGRAM && valid, typ == unix.SOCK_DGRAM || wide(0) || wide(1)
		}
		return false, d.Args[0] >= familyLimit
	case callSetsockopt:
		level := low(1)
		if level == 0xffff {
			level = 1
		}
		denied := level == 6 && low(2) == 31 || level == 1 && low(2) == 50 || level == 279 && low(2) == 1
		return denied && low(1) == abi.SocketLevelOn(level), denied || wide(1) || wide(2)
	case "clone", "unshare":
		flags := low(0)
		if name == "clone" && (abi.Name == "s390x" || abi.Name == "s390") {
			flags = low(1)
		}
		return flags&unix.CLONE_NEWUSER != 0, false
	case "clone3":
		return true, true
	}
	return false, false
}

// FuzzHardenClasses hardens whatever profile the bytes choose, as FuzzHarden does.
func FuzzHardenClasses(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 0, 3, 40})
	f.Add([]byte{1, 0, 1, 3, 0, 3, 1, 2, 1, 2, 3, 0})
	f.Add([]byte("raw sockets, options, and namespaces that nobody makes"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := chooser(data)
		arches := [][]specs.Arch{{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchS390X, specs.ArchS390}, {specs.ArchMIPS64, specs.ArchMIPS}}[c.below(3)]
		p := c.profile(arches)
		for i := range p.Syscalls { // some of them are about what only classes touch
			if c.below(2) == 0 {
				p.Syscalls[i].Names = []string{[]string{"clone", "unshare", "clone3", "setsockopt"}[c.below(4)]}
			}
		}
		src := encode(t, p)
		o := ways(src, arches[0])[c.below(4)].Options
		base := parse(t, src)
		hardened, _, err := Harden(manyClasses(), base, o)
		if err != nil {
			return
		}
		if err := judgeClasses(base, hardened, o); err != nil {
			t.Errorf("%s, socketcall %s, broker %q: %v", src, o.Socketcall, o.Broker, err)
		}
	})
}

// small are bases that are compiled in no time: one that denies by default, and one
// that allows.
func small() map[string]*profile.Profile {
	abis := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	return map[string]*profile.Profile{
		"denies": {DefaultAction: specs.ActErrno, Architectures: abis, Syscalls: []profile.Rule{
			{Names: []string{"read", "write", "exit_group", "socket", "socketpair", "setsockopt", "clone", "unshare", "clone3"}, Action: specs.ActAllow}}},
		"allows": {DefaultAction: specs.ActAllow, Architectures: abis},
	}
}

// TestProverFindsMutants damages what hardening wrote, a rule at a time, as a
// fault in the rewriting would. Where a program then lets a denied call through,
// the proof must fail.
func TestProverFindsMutants(t *testing.T) {
	t.Parallel()
	proverFindsMutants(t, 10)
}

func TestLongProverFindsMutants(t *testing.T) {
	t.Parallel()
	proverFindsMutants(t, 1)
}

// proverFindsMutants tries each n-th mutant.
func proverFindsMutants(t *testing.T, every int) {
	t.Helper()
	p := manyClasses()
	c := closing{classes: classesOf(p, nil), errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	var denied []cbpf.Data
	for _, s := range c.narrow {
		denied = append(denied, oracle.SocketCalls(s)...)
	}
	for _, f := range c.families {
		denied = append(denied, oracle.SocketCalls(afalg.Sockets{Family: f})...)
	}
	for _, o := range c.options {
		denied = append(denied, oracle.OptionCalls(o)...)
	}
	denied = append(denied, oracle.NamespaceCalls()...)
	for name, base := range small() {
		hardened, _, err := rewrite(base, c)
		if err != nil {
			t.Fatal(err)
		}
		open, proofs := 0, 0
		for i, m := range mutants(hardened) {
			if i%every != 0 {
				continue
			}
			program, err := compileFor(m.profile, hostOf(specs.ArchX86_64), seccomp.Crun)
			if err != nil {
				continue
			}
			failed := c.proveProgram(program, seccomp.Crun, isPermissive(base.DefaultAction))
			if failed == nil {
				proofs++
			}
			for _, d := range denied {
				a, _, err := cbpf.Program(program.Insns).Run(d, cbpf.Little)
				if err != nil {
					t.Fatal(err)
				}
				if !passes(a) {
					continue
				}
				open++
				if failed == nil {
					t.Errorf("%s, %s: %v passes, and is proved closed", name, m.name, d)
				}
				break
			}
		}
		t.Logf("%s: %d mutants let a denied call through, %d are proved closed", name, open, proofs)
		if open < 10 || proofs == 0 {
			t.Errorf("%s: %d mutants are open and %d closed: too few to mean anything", name, open, proofs)
		}
	}
}

type mutant struct {
	name    string
	profile *profile.Profile
}

// mutants damages each rule in several ways.
func mutants(p *profile.Profile) []mutant {
	var all []mutant
	add := func(i int, what string, change func(*profile.Rule)) {
		m := *p
		m.Syscalls = slices.Clone(p.Syscalls)
		m.Syscalls[i].Args = slices.Clone(m.Syscalls[i].Args)
		change(&m.Syscalls[i])
		all = append(all, mutant{fmt.Sprintf("syscalls[%d] %v %v: %s", i, p.Syscalls[i].Names, p.Syscalls[i].Args, what), &m})
	}
	for i, r := range p.Syscalls {
		add(i, "left out", func(r *profile.Rule) { r.Names = nil })
		if r.Action == specs.ActErrno {
			add(i, "allowed", func(r *profile.Rule) { r.Action, r.ErrnoRet = specs.ActAllow, nil })
		}
		for j := range r.Args {
			add(i, fmt.Sprintf("comparison %d one higher", j), func(r *profile.Rule) { r.Args[j].Value++; r.Args[j].ValueTwo++ })
			add(i, fmt.Sprintf("comparison %d left out", j), func(r *profile.Rule) { r.Args = slices.Delete(r.Args, j, j+1) })
			add(i, fmt.Sprintf("comparison %d of the whole register", j), func(r *profile.Rule) {
				if r.Args[j].Op == specs.OpMaskedEqual {
					r.Args[j] = specs.LinuxSeccompArg{Index: r.Args[j].Index, Op: specs.OpEqualTo, Value: r.Args[j].ValueTwo}
				}
			})
		}
	}
	return all
}
