package plan

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const classPolicy = `-- p --
version: 1
name: node
deny:
  presets: [page-cache]
  families: [AF_PACKET, AF_SMC]
  sockets: [{family: AF_INET, type: SOCK_RAW}, {family: AF_INET6, protocol: IPPROTO_UDP}]
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - {rule: ipsec, anyone: true, sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]}
  - {rule: ping, anyone: true, sockets: [{family: AF_INET, type: SOCK_RAW, protocol: IPPROTO_ICMP}]}
  - {rule: sandbox, anyone: true, user-namespaces: true, socket-options: [{level: SOL_TCP, option: TCP_ULP}]}
  - {rule: sums, anyone: true, algorithms: {hash: [sha1]}}
`

func TestDecideSocket(t *testing.T) {
	p := mustLoad(t, "p", classPolicy)
	tests := []struct {
		name                  string
		held                  []string
		family, typ, protocol uint32
		want                  bool
		rule, closed          string
	}{
		{"nothing closes it", nil, unix.AF_INET, unix.SOCK_STREAM, 0, true, "", ""},
		{"a family that no kernel has", nil, 77, unix.SOCK_STREAM, 0, true, "", ""},
		{"AF_ALG", []string{"sums"}, afalg.Family, unix.SOCK_SEQPACKET, 0, false, "", "AF_ALG"},
		{"a family of a preset", nil, unix.AF_RXRPC, unix.SOCK_DGRAM, 2, false, "", "AF_RXRPC (p:4:13; preset page-cache)"},
		{"a protocol of a preset", nil, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, false, "", "AF_NETLINK protocol NETLINK_XFRM (p:4:13; preset page-cache)"},
		{"another protocol", nil, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, true, "", ""},
		{"a type with flags", nil, unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 1, false, "", "AF_INET type SOCK_RAW (p:6:13)"},
		{"bits of the type that are no flags", nil, unix.AF_INET, unix.SOCK_RAW | 1<<31, 1, false, "", "AF_INET type SOCK_RAW (p:6:13)"},
		{"a twin", nil, unix.AF_INET, unix.SOCK_PACKET, 768, false, "", "AF_PACKET (p:5:14)"},
		{"SMC as a protocol", nil, unix.AF_INET6, unix.SOCK_STREAM, 256, false, "", "AF_SMC (p:5:25; preset unused)"},
		{"the default protocol", nil, unix.AF_INET6, unix.SOCK_DGRAM, 0, false, "", "AF_INET6 protocol IPPROTO_UDP (p:6:48)"},
		{"granted", []string{"ping", "ipsec"}, unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_XFRM, true, "ipsec", "AF_NETLINK protocol NETLINK_XFRM (p:4:13; preset page-cache)"},
		{"a part is granted", []string{"ping"}, unix.AF_INET, unix.SOCK_RAW, 1, true, "ping", "AF_INET type SOCK_RAW (p:6:13)"},
		{"another part", []string{"ping"}, unix.AF_INET, unix.SOCK_RAW, 255, false, "", "AF_INET type SOCK_RAW (p:6:13)"},
		{"another rule", []string{"sums", "sandbox"}, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, false, "", "AF_NETLINK protocol NETLINK_XFRM (p:4:13; preset page-cache)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			held, err := p.RulesNamed(test.held)
			if err != nil {
				t.Fatal(err)
			}
			checkClass(t, DecideSocket(p, held, test.family, test.typ, test.protocol), test.want, test.rule, test.closed)
		})
	}
	if d := DecideSocket(nil, nil, unix.AF_INET, unix.SOCK_STREAM, 0); d.Allowed || d.Closed != nil {
		t.Errorf("no plan: %+v", d)
	}
}

func TestDecideOptionAndUserNamespace(t *testing.T) {
	p := mustLoad(t, "p", classPolicy)
	sandbox, err := p.RulesNamed([]string{"sums", "sandbox"})
	if err != nil {
		t.Fatal(err)
	}
	ulp, nodelay := afalg.SocketOption{Level: unix.SOL_TCP, Option: unix.TCP_ULP}, afalg.SocketOption{Level: unix.SOL_TCP, Option: unix.TCP_NODELAY}
	checkClass(t, DecideOption(p, nil, nodelay), true, "", "")
	checkClass(t, DecideOption(p, nil, ulp), false, "", "TCP_ULP of SOL_TCP (p:7:20)")
	checkClass(t, DecideOption(p, sandbox, ulp), true, "sandbox", "TCP_ULP of SOL_TCP (p:7:20)")
	checkClass(t, DecideOption(nil, sandbox, ulp), false, "", "")
	checkClass(t, DecideUserNamespace(p, nil), false, "", "user namespaces")
	checkClass(t, DecideUserNamespace(p, sandbox), true, "sandbox", "user namespaces")
	checkClass(t, DecideUserNamespace(&Plan{}, nil), true, "", "")
	checkClass(t, DecideUserNamespace(nil, sandbox), false, "", "")
}

func checkClass(t *testing.T, d ClassDecision, want bool, rule, closed string) {
	t.Helper()
	var gotRule, gotClosed string
	if d.Rule != nil {
		gotRule = d.Rule.Name
	}
	if d.Closed != nil {
		gotClosed = d.Closed.String()
	}
	if d.Allowed != want || gotRule != rule || gotClosed != closed {
		t.Errorf("allowed %v, rule %q, closed by %q; want %v, %q, %q", d.Allowed, gotRule, gotClosed, want, rule, closed)
	}
}

// Every denial of a socket names what closes it, and only what is closed needs a
// rule.
func TestEveryDenialSaysWhy(t *testing.T) {
	p := mustLoad(t, "p", classPolicy)
	random := rand.New(rand.NewPCG(1, 2))
	denied := 0
	for range 20_000 {
		family, typ, protocol := random.Uint32N(50), random.Uint32N(16), random.Uint32N(20)
		held := p.Rules[:random.IntN(len(p.Rules)+1)]
		d := DecideSocket(p, held, family, typ, protocol)
		switch {
		case !d.Allowed && (d.Closed == nil || d.Rule != nil), d.Allowed && (d.Closed == nil) != (d.Rule == nil):
			t.Fatalf("socket(%d, %d, %d) with %d rules: %+v", family, typ, protocol, len(held), d)
		case !d.Allowed:
			denied++
		}
	}
	if denied == 0 {
		t.Error("nothing was denied")
	}
}

// A rule about sockets alone reaches no algorithm: its holder gets no
// placeholder.
func TestClassesReachNoAlgorithm(t *testing.T) {
	p := mustLoad(t, "p", classPolicy)
	for _, rule := range p.Rules {
		alone := &Plan{Rules: []policy.Rule{rule}}
		if got, want := Reaches(alone, Request{}), rule.Name == "sums"; got != want {
			t.Errorf("rule %s: reaches an algorithm: %v, want %v", rule.Name, got, want)
		}
	}
}
