package verify_test

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
)

// classesPlan denies a class of every kind.
func classesPlan() *plan.Plan {
	return &plan.Plan{
		Name: "classes", SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: uint32(unix.EAFNOSUPPORT)},
		Families:      []policy.Family{{Name: "AF_PACKET", Number: unix.AF_PACKET}},
		Sockets:       []policy.Socket{{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"}, {Family: "AF_INET", Type: "SOCK_RAW"}},
		SocketOptions: []policy.SocketOption{{Level: "SOL_TCP", Option: "TCP_ULP"}}, UserNamespaces: true,
	}
}

// deniedCalls reach what classesPlan denies, by the errno that a kernel without
// it answers.
func deniedCalls() map[unix.Errno][]cbpf.Data {
	denied := map[unix.Errno][]cbpf.Data{}
	p := classesPlan()
	for _, s := range p.ClosedSockets() {
		denied[unix.EAFNOSUPPORT] = append(denied[unix.EAFNOSUPPORT], oracle.SocketCalls(s)...)
	}
	for _, o := range p.ClosedOptions() {
		denied[unix.ENOPROTOOPT] = append(denied[unix.ENOPROTOOPT], oracle.OptionCalls(o)...)
	}
	for _, d := range oracle.NamespaceCalls() {
		errno := unix.EINVAL
		if nr := d.Nr &^ afalg.X32Bit; nr == 435 { // clone3
			errno = unix.ENOSYS
		}
		denied[errno] = append(denied[errno], d)
	}
	return denied
}

// otherCalls are next to what is denied, and in use.
func otherCalls() []cbpf.Data {
	var calls []cbpf.Data
	for _, abi := range machine {
		clone, unshare := uint32(56), uint32(272)
		if abi.Kind == afalg.Compat {
			clone, unshare = 120, 310
		}
		for _, c := range []struct {
			nr   uint32
			args [6]uint64
		}{
			{abi.Socket, [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE}},
			{abi.Socket, [6]uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, unix.IPPROTO_TCP}},
			{abi.Socket, [6]uint64{unix.AF_INET, unix.SOCK_DGRAM, 0}},
			{abi.Socket, [6]uint64{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}},
			{abi.Socket, [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}},
			{abi.Socketpair, [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0, oracle.Pair}},
			{abi.Setsockopt, [6]uint64{3, unix.SOL_TCP, unix.TCP_NODELAY, oracle.Pair, 4}},
			{abi.Setsockopt, [6]uint64{3, unix.SOL_SOCKET, unix.TCP_ULP, oracle.Pair, 4}},
			{clone, [6]uint64{uint64(unix.SIGCHLD)}},
			{clone, [6]uint64{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_THREAD | unix.CLONE_SIGHAND}},
			{unshare, [6]uint64{unix.CLONE_NEWNS | unix.CLONE_NEWPID}},
		} {
			calls = append(calls, cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | c.nr, Args: c.args})
		}
	}
	return calls
}

// TestClassesOnKernel: the kernel refuses what the policy denies, and answers what
// stands next to it as under the base. Under the base it lets the same calls
// through, which shows that they were real.
func TestClassesOnKernel(t *testing.T) {
	all := bases(t)
	for _, name := range baseNames {
		base, err := profile.Parse(all[name])
		if err != nil {
			t.Fatal(err)
		}
		hardened, _, err := harden.Harden(classesPlan(), base, harden.Options{Host: amd64Host})
		if err != nil {
			t.Fatal(err)
		}
		before, after := compiled(t, resolve(t, all[name])), compiled(t, onHost(t, hardened))
		forEachKind(t, func(t *testing.T, abis []afalg.ABI) {
			reached := 0
			for errno, denied := range deniedCalls() {
				denied = among(denied, abis)
				open := answersOf(t, before[0], denied)
				for _, filter := range after {
					for i, got := range answersOf(t, filter, denied) {
						if open[i].Errno() == oracle.Gated {
							reached++
						}
						// What the base or high bits refuse may have the base's errno.
						if got.Errno() == oracle.Gated || got.What != oracle.Returned {
							t.Errorf("%s: %v is answered by %v", name, denied[i], got)
						} else if open[i].Errno() == oracle.Gated && plain(denied[i]) && got.Errno() != errno {
							t.Errorf("%s: %v is answered by %v, want %v", name, denied[i], got, errno)
						}
					}
				}
			}
			if reached < 100 {
				t.Errorf("%s: only %d of the calls pass the base", name, reached)
			}
			others := among(otherCalls(), abis)
			want := answersOf(t, before[0], others)
			for _, filter := range after {
				for i, got := range answersOf(t, filter, others) {
					if got != want[i] {
						t.Errorf("%s: %v is answered by %v, by the base %v", name, others[i], got, want[i])
					}
				}
			}
		})
	}
}

func onHost(t *testing.T, p *profile.Profile) *specs.LinuxSeccomp {
	t.Helper()
	resolved, err := p.Resolve(amd64Host)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func answersOf(t *testing.T, f cbpf.Filter, calls []cbpf.Data) []oracle.Answer {
	t.Helper()
	return askKernel(t, []oracle.Case{oracle.Judged(f, calls)})[0]
}

// among leaves out the calls of other ABIs.
func among(calls []cbpf.Data, abis []afalg.ABI) []cbpf.Data {
	var list []cbpf.Data
	for _, d := range calls {
		for _, abi := range abis {
			if d.Arch == abi.Audit && d.Nr&afalg.X32Bit == abi.Bit {
				list = append(list, d)
			}
		}
	}
	return list
}

// plain reports whether no argument has high bits.
func plain(d cbpf.Data) bool {
	for _, a := range d.Args {
		if a>>32 != 0 {
			return false
		}
	}
	return true
}

// TestClassesOfABase is the control of the proofs: verify finds open what Docker's
// default leaves open.
func TestClassesOfABase(t *testing.T) {
	filter := compiled(t, resolve(t, bases(t)["docker"]))[0]
	p := classesPlan()
	asked, err := verify.Classes{
		Families: []uint32{unix.AF_RXRPC, unix.AF_RDS, unix.AF_KEY, unix.AF_TIPC}, Sockets: p.ClosedSockets(), Options: p.ClosedOptions(), UserNamespaces: true,
	}.Questions(machine)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range asked {
		for _, q := range a.Questions {
			v, err := q.Ask(filter, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := verify.Open
			if a.About == "user namespaces" || v.Call.Route == afalg.RouteIOUring || v.Call.Route == afalg.RouteSocketHighbits {
				want = verify.Closed
			}
			if v.State != want {
				t.Errorf("%s by %s on %s is %s (%v), want %s", a.About, v.Call.Name, v.Call.ABI.Name, v.State, v.Witness, want)
			}
		}
	}
}
