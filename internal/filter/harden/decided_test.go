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
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Random policies and calls: what a compiled filter answers is what the policy
// means, by every ABI and with any upper halves.
func TestFiltersDecideAsThePolicy(t *testing.T) {
	t.Parallel()
	filtersDecide(t, 12)
}

func TestLongFiltersDecideAsThePolicy(t *testing.T) {
	t.Parallel()
	filtersDecide(t, 200)
}

func filtersDecide(t *testing.T, policies uint64) {
	t.Helper()
	counted := map[string]int{}
	for seed := range policies {
		r := rand.New(rand.NewPCG(seed, 15))
		p := randomClasses(r)
		var grants []string
		for _, rule := range p.Rules {
			if r.IntN(2) == 0 {
				grants = append(grants, rule.Name)
			}
		}
		held, err := p.RulesNamed(grants)
		if err != nil {
			t.Fatal(err)
		}
		d := decider{t, fmt.Sprintf("policy %d", seed), p, held, counted}
		for name, base := range small() {
			hardened, _, err := Harden(p, base, Options{Host: hostOf(specs.ArchX86_64), Grants: grants})
			if err != nil {
				t.Fatalf("policy %d on %s: %v", seed, name, err)
			}
			for _, runtime := range seccomp.Runtimes() {
				before, err := compileFor(base, hostOf(specs.ArchX86_64), runtime)
				if err != nil {
					t.Fatal(err)
				}
				after, err := compileFor(hardened, hostOf(specs.ArchX86_64), runtime)
				if err != nil {
					t.Fatal(err)
				}
				d.compare(r, cbpf.Program(before.Insns), cbpf.Program(after.Insns))
			}
		}
	}
	t.Log(counted)
	for _, what := range []string{"socket denied", "socket allowed", "socket granted", "option denied", "option allowed", "namespace denied", "namespace allowed"} {
		if counted[what] < 10 {
			t.Errorf("%s: %d of the calls, too few to mean anything", what, counted[what])
		}
	}
}

// decider asks a filter what the plan decides.
type decider struct {
	*testing.T
	name    string
	plan    *plan.Plan
	held    []policy.Rule
	counted map[string]int
}

func (d decider) compare(r *rand.Rand, before, after cbpf.Program) {
	d.Helper()
	for range 400 {
		family, typ, protocol := d.randomSocket(r)
		flags := []uint32{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}[r.IntN(4)]
		decision := plan.DecideSocket(d.plan, d.held, family, typ|flags, protocol)
		d.check("socket", decision, d.partly(family, typ, protocol), before, after, func(a afalg.ABI) cbpf.Data {
			nr := a.Socket
			if r.IntN(3) == 0 {
				nr = a.Socketpair
			}
			return call(a, nr, wide(r, family), wide(r, typ|flags), wide(r, protocol))
		})
	}
	for range 100 {
		o := randomOption(r)
		d.check("option", plan.DecideOption(d.plan, d.held, o), false, before, after, func(a afalg.ABI) cbpf.Data {
			return call(a, a.Setsockopt, 3, wide(r, o.Level), wide(r, o.Option))
		})
	}
	for range 20 {
		flags := r.Uint32()
		decision := plan.ClassDecision{Allowed: true}
		if flags&unix.CLONE_NEWUSER != 0 {
			decision = plan.DecideUserNamespace(d.plan, d.held)
		}
		d.check("namespace", decision, false, before, after, func(a afalg.ABI) cbpf.Data {
			name := []string{"clone", "unshare"}[r.IntN(2)]
			nr, err := seccomp.Number(name, specs.Arch(a.Arch))
			if err != nil {
				d.Fatal(err)
			}
			return call(a, nr&^a.Bit, wide(r, flags))
		})
	}
}

// check asks about one call by each ABI. What the plan closes is refused, and
// what it leaves is answered as before. A filter may close more where a rule
// opens a part of a class, and ints that no program passes.
func (d decider) check(what string, decision plan.ClassDecision, partly bool, before, after cbpf.Program, input func(afalg.ABI) cbpf.Data) {
	d.Helper()
	word := " allowed"
	if !decision.Allowed {
		word = " denied"
	} else if decision.Rule != nil {
		word = " granted"
	}
	d.counted[what+word]++
	for _, name := range []string{"x86-64", "i386", "x32"} {
		abi, _ := afalg.ABINamed(name)
		in := input(abi)
		was, _, err := before.Run(in, cbpf.Little)
		if err != nil {
			d.Fatal(err)
		}
		is, _, err := after.Run(in, cbpf.Little)
		if err != nil {
			d.Fatal(err)
		}
		switch {
		case !decision.Allowed && passes(is):
			d.Errorf("%s %v: %v passes, and the policy denies it by %v", d.name, d.plan.ClosedNames(), in, decision.Closed)
		case decision.Allowed && !partly && is != was && !hasUpperHalves(in):
			d.Errorf("%s %v: %v is %v and was %v, and the policy allows it", d.name, d.plan.ClosedNames(), in, is, was)
		}
	}
}

func hasUpperHalves(in cbpf.Data) bool {
	return slices.ContainsFunc(in.Args[:], func(v uint64) bool { return v>>32 != 0 })
}

// partly reports whether a closed class holds the socket, and no rule opens that
// class whole.
func (d decider) partly(family, typ, protocol uint32) bool {
	opened := plan.OpenedBy(d.held)
	return slices.ContainsFunc(d.plan.ClosedSockets(), func(s afalg.Sockets) bool {
		return s.Contains(family, typ, protocol) && !slices.ContainsFunc(opened.Sockets, func(o afalg.Sockets) bool { return o.Covers(s) })
	})
}

func call(a afalg.ABI, nr uint32, args ...uint64) cbpf.Data {
	in := cbpf.Data{Arch: a.Audit, Nr: a.Bit | nr}
	for i, v := range args {
		if a.Kind == afalg.Compat {
			v = uint64(uint32(v))
		}
		in.Args[i] = v
	}
	return in
}

// wide is a register whose lower half is v.
func wide(r *rand.Rand, v uint32) uint64 {
	return uint64([]uint32{0, 0, 1, 1 << 31, 1<<32 - 1}[r.IntN(5)])<<32 | uint64(v)
}

var (
	someFamilies  = []string{"AF_NETLINK", "AF_INET", "AF_INET6", "AF_PACKET", "AF_SMC", "AF_UNIX", "AF_KEY", "AF_RDS", "AF_CAN", "AF_BLUETOOTH"}
	someProtocols = map[string][]string{
		"AF_NETLINK": {"NETLINK_ROUTE", "NETLINK_XFRM", "NETLINK_AUDIT", "NETLINK_NETFILTER"},
		"AF_INET":    {"IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_SCTP", "IPPROTO_SMC"}, "AF_INET6": {"IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_SMC"},
		"AF_BLUETOOTH": {"BTPROTO_HCI", "BTPROTO_SCO"}, "AF_CAN": {"CAN_BCM", "CAN_J1939"},
	}
	someTypes = []string{"SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_SEQPACKET", "SOCK_PACKET"}
)

func randomClasses(r *rand.Rand) *plan.Plan {
	p := testPlan()
	p.Rules = nil
	seen := map[afalg.Sockets]bool{}
	for range r.IntN(6) {
		s := randomClass(r)
		if c := s.Class(); c.Whole() && !p.Closes(c.Family) {
			p.Families = append(p.Families, policy.Family{Name: s.Family, Number: c.Family})
		} else if !c.Whole() && !seen[c] {
			seen[c] = true
			p.Sockets = append(p.Sockets, s)
		}
	}
	for range r.IntN(3) {
		level, option := randomOption(r).Names()
		p.SocketOptions = append(p.SocketOptions, policy.SocketOption{Level: level, Option: option})
	}
	p.UserNamespaces = r.IntN(2) == 0
	for i := range r.IntN(4) {
		rule := policy.Rule{Name: fmt.Sprint("rule", i), Anyone: true, UserNamespaces: r.IntN(4) == 0}
		for range 1 + r.IntN(2) {
			rule.Sockets = append(rule.Sockets, randomClass(r))
		}
		if len(p.SocketOptions) > 0 && r.IntN(2) == 0 {
			rule.SocketOptions = p.SocketOptions[:1]
		}
		if len(p.Sockets) > 0 && r.IntN(2) == 0 {
			rule.Sockets = append(rule.Sockets, p.Sockets[0])
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func randomClass(r *rand.Rand) policy.Socket {
	s := policy.Socket{Family: oneOf(r, someFamilies)}
	if r.IntN(2) == 0 {
		s.Type = oneOf(r, someTypes)
	}
	if list := someProtocols[s.Family]; list != nil && r.IntN(3) > 0 {
		s.Protocol = oneOf(r, list)
	}
	return s
}

// randomSocket is a call, more often than not of a class that is mentioned.
func (d decider) randomSocket(r *rand.Rand) (family, typ, protocol uint32) {
	s := randomClass(r).Class()
	all := d.plan.ClosedSockets()
	if opened := plan.OpenedBy(d.held).Sockets; len(opened) > 0 && r.IntN(3) == 0 {
		all = opened
	}
	if len(all) > 0 && r.IntN(2) == 0 {
		s = oneOf(r, all)
	}
	family, typ, protocol = s.Family, s.Type, s.Protocol
	if typ == 0 || r.IntN(8) == 0 {
		typ = r.Uint32N(16)
	}
	if !s.HasProtocol || r.IntN(8) == 0 {
		protocol = []uint32{0, r.Uint32N(30), 256, 255, r.Uint32()}[r.IntN(5)]
	}
	return family, typ, protocol
}

func randomOption(r *rand.Rand) afalg.SocketOption {
	return oneOf(r, []afalg.SocketOption{{Level: unix.SOL_TCP, Option: unix.TCP_ULP}, {Level: unix.SOL_TCP, Option: unix.TCP_REPAIR},
		{Level: unix.SOL_SOCKET, Option: unix.SO_ATTACH_BPF}, {Level: unix.SOL_UDP, Option: unix.UDP_ENCAP}, {Level: unix.SOL_IPV6, Option: unix.TCP_ULP}})
}

func oneOf[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }
