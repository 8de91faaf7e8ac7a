package harden

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// TestDenyLists: profiles that allow by default and deny something else of
// socket or socketpair. libseccomp adds a rule for socketcall to each denial.
func TestDenyLists(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/denylists/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			hardenEveryWay(t, readFile(t, name), specs.ArchX86_64)
		})
	}
}

// withSocketcall are machines with an ABI that has socketcall, beside another
// or as their own; and one without.
var withSocketcall = map[specs.Arch][]specs.Arch{
	specs.ArchX86_64:  {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
	specs.ArchS390X:   {specs.ArchS390X, specs.ArchS390},
	specs.ArchPPC64LE: {specs.ArchPPC64LE},
	specs.ArchMIPS64:  {specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPS},
	specs.ArchAARCH64: {specs.ArchAARCH64, specs.ArchARM},
}

// denialsOf lists denials on a call: each action, each kind of comparison.
func denialsOf(name string) []specs.LinuxSyscall {
	number := func(n uint) *uint { return &n }
	actions := []specs.LinuxSyscall{
		{Action: specs.ActErrno},
		{Action: specs.ActErrno, ErrnoRet: number(uint(unix.EACCES))},
		{Action: specs.ActErrno, ErrnoRet: number(uint(unix.EAFNOSUPPORT))},
		{Action: specs.ActKillProcess},
		{Action: specs.ActKill},
		{Action: specs.ActTrap},
		{Action: specs.ActTrace},
		{Action: specs.ActLog},
	}
	comparisons := [][]specs.LinuxSeccompArg{
		{compare(0, specs.OpEqualTo, unix.AF_VSOCK)},
		{compare(0, specs.OpEqualTo, unix.AF_ALG)},
		{{Index: 0, Op: specs.OpMaskedEqual, Value: lowWord, ValueTwo: unix.AF_PACKET}},
		{compare(0, specs.OpEqualTo, unix.AF_INET), compare(1, specs.OpEqualTo, unix.SOCK_RAW)},
		{compare(1, specs.OpEqualTo, unix.SOCK_RAW)},
		{{Index: 1, Op: specs.OpMaskedEqual, Value: 0xf, ValueTwo: unix.SOCK_RAW}},
		{compare(2, specs.OpEqualTo, unix.IPPROTO_SCTP)},
		{compare(0, specs.OpGreaterThan, unix.AF_VSOCK)},
		nil,
	}
	var all []specs.LinuxSyscall
	for _, a := range actions {
		for _, args := range comparisons {
			one := a
			one.Names, one.Args = []string{name}, args
			all = append(all, one)
		}
	}
	return all
}

// TestDenyListProduct hardens denials on one call, alone: some of those that
// TestLongDenyListProduct has, on every machine.
func TestDenyListProduct(t *testing.T) {
	t.Parallel()
	for arch := range withSocketcall {
		if testing.Short() && arch != specs.ArchX86_64 {
			continue
		}
		// With 11, every action and every comparison comes; with 29, every comparison.
		step := 29
		if arch == specs.ArchX86_64 {
			step = 11
		}
		denialsAlone(t, arch, step)
	}
}

// TestLongDenyListProduct hardens each denial on each call on x86-64, and more
// than TestDenyListProduct does on the other machines.
func TestLongDenyListProduct(t *testing.T) {
	t.Parallel()
	for arch := range withSocketcall {
		step := 11
		if arch == specs.ArchX86_64 {
			step = 1
		}
		denialsAlone(t, arch, step)
	}
}

// denialsAlone hardens one in so many of the denials, under both defaults.
func denialsAlone(t *testing.T, arch specs.Arch, step int) {
	t.Helper()
	n := 0
	for _, def := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog} {
		for _, d := range slices.Concat(denialsOf("socket"), denialsOf("socketpair")) {
			if n++; d.Action == def || n%step != 0 {
				continue
			}
			p := specs.LinuxSeccomp{DefaultAction: def, Architectures: withSocketcall[arch], Syscalls: []specs.LinuxSyscall{d}}
			hardenEveryWay(t, encode(t, p), arch)
		}
	}
}

// TestDenyListPairs hardens some of two denials at a time, and
// TestLongDenyListPairs ten times as many.
func TestDenyListPairs(t *testing.T)     { t.Parallel(); denialPairs(t, 1009) }
func TestLongDenyListPairs(t *testing.T) { t.Parallel(); denialPairs(t, 101) }

// TestDenyListsWithSocketcall hardens denials beside one of all of socketcall,
// where libseccomp loses them on x86-64 with x32. A base that loses a rule of
// another kind is refused.
func TestDenyListsWithSocketcall(t *testing.T) {
	t.Parallel()
	for i, d := range slices.Concat(denialsOf("socket"), denialsOf("socketpair")) {
		if i%7 != 0 || isPermissive(d.Action) || partsOf(d.Args) == nil {
			continue
		}
		all := specs.LinuxSyscall{Names: []string{"socketcall"}, Action: specs.ActErrno}
		p := specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: withSocketcall[specs.ArchX86_64], Syscalls: []specs.LinuxSyscall{d, all},
		}
		hardenEveryWay(t, encode(t, p), specs.ArchX86_64)
	}
}

// denialPairs hardens one in so many of all pairs of denials.
func denialPairs(t *testing.T, step int) {
	t.Helper()
	all := slices.Concat(denialsOf("socket"), denialsOf("socketpair"))
	for i := 0; i < len(all)*len(all); i += step {
		a, b := all[i/len(all)], all[i%len(all)]
		p := specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: withSocketcall[specs.ArchX86_64], Syscalls: []specs.LinuxSyscall{a, b},
		}
		hardenEveryWay(t, encode(t, p), specs.ArchX86_64)
	}
}

func encode(t testing.TB, p specs.LinuxSeccomp) []byte {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ways lists how a profile is hardened, and the gaps that are accepted.
func ways(src []byte, arch specs.Arch) []task {
	plain := task{Options{Tool: "test", Socketcall: SocketcallDeny, Host: hostOf(arch)}, src}
	keep, broker, brokered := plain, plain, plain
	keep.Socketcall = SocketcallKeep
	broker.Broker, broker.Grants = "/run/afalg-policy.sock", []string{"fips"}
	brokered.Broker, brokered.Socketcall = broker.Broker, SocketcallBroker
	return []task{plain, keep, broker, brokered}
}

// hardenEveryWay hardens a profile, and has the oracle look at the result.
func hardenEveryWay(t *testing.T, src []byte, arch specs.Arch) {
	t.Helper()
	for _, o := range ways(src, arch) {
		err := hardenAndJudge(o)
		if err != nil && !strings.Contains(err.Error(), "give the call one permissive action") && !strings.Contains(err.Error(), "no runtime loads the base") {
			t.Errorf("%s on %s, socketcall %s, broker %q: %v", strings.Join(strings.Fields(string(src)), ""), arch, o.Socketcall, o.Broker, err)
		}
	}
}

// hardenAndJudge hardens, and has the oracle look at the result.
func hardenAndJudge(o task) error {
	hardened, gaps, err := hardenAccepting(o)
	if err != nil {
		return err
	}
	return judge(o, hardened, gaps)
}

// hardenAccepting hardens, and takes on whatever wider gap there is.
func hardenAccepting(o task) (*profile.Profile, []plan.Gap, error) {
	hardened, gaps, err := o.run(testPlan("fips"))
	if wider, ok := err.(*plan.UnacceptedError); ok {
		for _, g := range wider.Gaps {
			o.Accept = append(o.Accept, g.Name)
		}
		hardened, gaps, err = o.run(testPlan("fips"))
	}
	return hardened, gaps, err
}
