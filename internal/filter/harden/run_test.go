package harden

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

var machines = []specs.Arch{
	specs.ArchX86_64, specs.ArchAARCH64, specs.ArchS390X, specs.ArchRISCV64, specs.ArchLOONGARCH64,
	specs.ArchPPC64LE, specs.ArchMIPS64, specs.ArchMIPSEL64,
}

func TestRunFilter(t *testing.T) {
	p := testPlan("fips")
	p.Families = []policy.Family{{Name: "AF_RXRPC", Number: unix.AF_RXRPC}}
	for _, arch := range machines {
		for _, s := range brokerWays {
			insns, _, err := RunFilter(p, RunOptions{Arch: arch, Socketcall: s})
			if err != nil {
				t.Fatalf("%s, socketcall %s: %v", arch, s, err)
			}
			c := brokerClosing(s)
			program := cbpf.Program(insns)
			for _, abi := range afalg.Machine(string(arch)) {
				for _, family := range classesOf(p, nil).families {
					c.checkRoutes(t, program, abi, family)
				}
				checkOrdinary(t, program, abi, s)
				checkBitmap(t, program, abi)
			}
		}
	}
}

// checkRoutes asks every route, on every ABI of the machine.
func (c closing) checkRoutes(t *testing.T, program cbpf.Program, abi afalg.ABI, family uint32) {
	t.Helper()
	verdicts, err := verify.Routes(cbpf.Filter{program}, []afalg.ABI{abi}, family, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		want := c.wantState(v.Call, true)
		if family != afalg.Family && v.Call.Name == "socket" {
			want = verify.Closed
		}
		if v.State != want {
			t.Errorf("socketcall %s: family %d by %s on %s is %s, want %s", c.socketcall, family, v.Call.Name, abi.Name, v.State, want)
		}
	}
}

// checkOrdinary asks for calls that have nothing to do with AF_ALG.
func checkOrdinary(t *testing.T, program cbpf.Program, abi afalg.ABI, s Socketcall) {
	t.Helper()
	f := cbpf.Filter{program}
	check := func(want string, nr uint32, args ...uint64) {
		if nr == 0 {
			return
		}
		if got := actionOf(t, f, abi, nr, args...); got != want {
			t.Errorf("socketcall %s: call %d%v on %s gives %s, want %s", s, nr, args, abi.Name, got, want)
		}
	}
	for _, name := range []string{"read", "write", "openat", "futex", "execve", "listen", "connect", "sendmsg", "getpid"} {
		nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
		if err != nil {
			t.Fatal(err)
		}
		check("ALLOW", nr&^abi.Bit)
	}
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, 45} {
		check("ALLOW", abi.Socket, family, 1)
		check("ALLOW", abi.Socketpair, family, 1)
	}
	for _, length := range []uint64{2, 16, 28, 87, 89, 110} {
		check("ALLOW", abi.Bind, 3, 0x1000, length)
	}
	check("NOTIFY", abi.Bind, 3, 0x1000, afalg.SockaddrSize)
	check("ALLOW", abi.Setsockopt, 3, unix.SOL_SOCKET)
	check("NOTIFY", abi.Setsockopt, 3, unix.SOL_ALG, unix.ALG_SET_KEY)
	for _, nr := range []uint32{abi.Accept, abi.Accept4} {
		check("ALLOW", nr, 3, 0x1000, 0x2000)
		check("NOTIFY", nr, 3, 0, 0)
	}
	if s != SocketcallBroker {
		check("ERRNO(97)", abi.Socketcall, 9)
		return
	}
	for call := range uint64(socketcallLimit + 1) {
		want := "ALLOW"
		if slices.Contains(socketcallBrokered, call) {
			want = "NOTIFY"
		}
		check(want, abi.Socketcall, call, 0, 88)
	}
}

// checkBitmap emulates the program as the kernel does for its bitmap of calls
// that are always allowed (seccomp_is_const_allow, since 5.11): with the number
// and the architecture known, and giving up at the first load of anything else.
func checkBitmap(t *testing.T, program cbpf.Program, abi afalg.ABI) {
	t.Helper()
	touched := []uint32{abi.Socket, abi.Socketpair, abi.Socketcall, abi.IOUring + 1, abi.IOUring + 2}
	touched = append(touched, abi.Bind, abi.Setsockopt, abi.Accept, abi.Accept4)
	for _, name := range []string{"prctl", callSeccomp} {
		nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
		if err != nil {
			t.Fatal(err)
		}
		touched = append(touched, nr&^abi.Bit)
	}
	for nr := range uint32(7000) {
		if !constant(program, abi.Audit, abi.Bit|nr) && !slices.Contains(touched, nr) {
			t.Errorf("call %d on %s is not decided by its number alone", nr, abi.Name)
			return
		}
	}
}

// constant reports whether a program decides without an argument.
func constant(program cbpf.Program, audit, nr uint32) bool {
	const loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	a := uint32(0)
	for pc := 0; pc < len(program); pc++ {
		in := program[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case loadWord:
			switch in.K {
			case 0:
				a = nr
			case 4:
				a = audit
			default:
				return false
			}
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&in.K != 0)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_RET | unix.BPF_K:
			return true
		default:
			return false
		}
	}
	return false
}

func TestRunFilterRefuses(t *testing.T) {
	tests := []struct {
		o    RunOptions
		want string
	}{
		{RunOptions{Arch: specs.ArchX86_64, Socketcall: SocketcallKeep}, "socketcall cannot be kept"},
		{RunOptions{Arch: specs.ArchX86_64, Socketcall: "x"}, `unknown treatment of socketcall "x"`},
		{RunOptions{}, "unknown architecture"},
	}
	for _, test := range tests {
		program, _, err := RunFilter(testPlan(), test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) || program != nil {
			t.Errorf("%+v: %v, want %q", test.o, err, test.want)
		}
	}
}

// TestRunFilterZeroCopy: the broker decides who has AF_ALG, and cannot see what
// they then do without a copy.
func TestRunFilterZeroCopy(t *testing.T) {
	p := testPlan("fips")
	p.ZeroCopy = policy.Yes
	o := RunOptions{Arch: specs.ArchX86_64}
	if _, _, err := RunFilter(p, o); err != nil {
		t.Error(err)
	}
	o.Grants = []string{"fips"}
	if program, _, err := RunFilter(p, o); program != nil || err == nil || !strings.Contains(err.Error(), "--accept zero-copy") {
		t.Errorf("%v", err)
	}
	o.Accept = []string{"zero-copy"}
	if program, gaps, err := RunFilter(p, o); program == nil || err != nil || gaps[0].Name != "zero-copy" {
		t.Errorf("%v, %v", gaps, err)
	}
}

// TestRunFilterGaps: rules that nobody holds are not the filter's business.
func TestRunFilterGaps(t *testing.T) {
	for s, want := range map[Socketcall][]string{
		"":               {"stricter compat-socketcall", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"},
		SocketcallBroker: {"stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"},
	} {
		_, gaps, err := RunFilter(testPlan("fips"), RunOptions{Arch: specs.ArchX86_64, Socketcall: s})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range gaps {
			got = append(got, string(g.Kind)+" "+g.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("socketcall %q: %v, want %v", s, got, want)
		}
	}
}
