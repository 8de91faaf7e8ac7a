package gen

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// algorithmsPlan has rules about algorithms.
func algorithmsPlan() *plan.Plan {
	p := wirelessPlan()
	for i := range p.Rules {
		p.Rules[i].Algorithms = policy.Algorithms{{Algorithm: afalg.Algorithm{Type: afalg.Hash, Name: "sha256"}}}
	}
	return p
}

// classesPlan closes classes of every kind, and has rules about them.
func selinuxPlan() *plan.Plan {
	p := algorithmsPlan()
	p.Families = append(p.Families, policy.Family{Name: "AF_SMC", Number: 43})
	p.Sockets = []policy.Socket{
		{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"},
		{Family: "AF_NETLINK", Protocol: "NETLINK_USERSOCK"},
		{Family: "AF_PACKET", Type: "SOCK_RAW"},
	}
	p.SocketOptions = []policy.SocketOption{{Level: "SOL_TCP", Option: "TCP_ULP"}}
	p.UserNamespaces = true
	p.Rules = append(p.Rules, policy.Rule{Name: "tunnel", Sockets: []policy.Socket{{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"}}})
	return p
}

// acceptClasses are the wider gaps of classesPlan on any host.
var acceptClasses = []string{policy.GapSockets, policy.GapSocketOptions}

func domains(rules ...string) map[string][]string {
	held := map[string][]string{}
	for _, rule := range rules {
		held[rule] = []string{"holder_t"}
	}
	return held
}

var selinuxCases = []struct {
	name string
	plan *plan.Plan
	opts SELinuxOptions
}{
	{"nobody", algorithmsPlan(), SELinuxOptions{}},
	{"domain", algorithmsPlan(), SELinuxOptions{Domains: domains("iwd"), Common: Common{Accept: []string{"iwd"}}}},
	{"constraints", algorithmsPlan(), SELinuxOptions{Userspace: "3.5", Domains: domains("iwd"), Common: Common{Accept: []string{"iwd"}}}},
	{"classes", selinuxPlan(), SELinuxOptions{Kernel: "6.12.1-amd64", Domains: domains("tunnel"), Common: Common{Accept: append(acceptClasses, "tunnel")}}},
	{"lacks", selinuxPlan(), SELinuxOptions{Lacks: []string{usernsClass, "rxrpc_socket"},
		Common: Common{Accept: append(acceptClasses, policy.GapUserNamespaces)}}},
}

func selinuxText(t *testing.T, p *plan.Plan, o SELinuxOptions) string {
	t.Helper()
	o.Tool = "afalg-policy test"
	files, _, err := SELinux(p, o)
	if err != nil {
		t.Fatal(err)
	}
	return string(files[0].Data)
}

func TestSELinuxGolden(t *testing.T) {
	for _, c := range selinuxCases {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Tool = "afalg-policy test"
			files, _, err := SELinux(c.plan, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			compareTree(t, filepath.Join("testdata", "selinux", c.name), files)
		})
	}
}

func TestSELinuxRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts SELinuxOptions
		want string
	}{
		{"a grant without a domain", SELinuxOptions{Common: Common{Grants: []string{"iwd"}}}, "name it with --domain iwd=TYPE"},
		{"no such rule", SELinuxOptions{Domains: domains("none")}, "--domain none: the policy has no rule of that name"},
		{"no type", SELinuxOptions{Domains: map[string][]string{"iwd": nil}}, "no type"},
		{"an expression", SELinuxOptions{Domains: map[string][]string{"iwd": {"not (x)"}}}, "the name of an SELinux type"},
		{"a statement", SELinuxOptions{Domains: map[string][]string{"iwd": {"x))\n(typepermissive y"}}}, "the name of an SELinux type"},
		{"a comment", SELinuxOptions{Domains: map[string][]string{"iwd": {"x;"}}}, "the name of an SELinux type"},
		{"an empty name", SELinuxOptions{Domains: map[string][]string{"iwd": {""}}}, "the name of an SELinux type"},
		{"a long name", SELinuxOptions{Domains: map[string][]string{"iwd": {strings.Repeat("x", 256)}}}, "the name of an SELinux type"},
		{"no version", SELinuxOptions{Userspace: "new"}, `SELinux userspace "new": a version such as 2.4 is meant`},
		{"no CIL", SELinuxOptions{Userspace: "2.3"}, "2.4 is the first that does"},
		{"no release", SELinuxOptions{Kernel: "-1.5"}, `kernel "-1.5": a version such as 6.1 is meant`},
		{"no class for AF_ALG", SELinuxOptions{Lacks: []string{algClass}}, "there is nothing to generate"},
		{"a class of no use", SELinuxOptions{Lacks: []string{"mctp_socket"}}, "it has alg_socket, rxrpc_socket"},
		{"a domain not accepted", SELinuxOptions{Domains: domains("iwd")}, "accept with --accept iwd"},
	} {
		files, _, err := SELinux(algorithmsPlan(), tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || files != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestSELinuxGaps: each class that cannot be told from others is a gap.
func TestSELinuxGaps(t *testing.T) {
	p := selinuxPlan()
	p.SocketErrno.Name = selinuxErrno
	p.Families = append(p.Families, policy.Family{Name: "AF_ECONET", Number: unix.AF_ECONET})
	p.Sockets = append(p.Sockets, policy.Socket{Family: "AF_INET", Protocol: "900"})
	_, gaps, _ := SELinux(p, SELinuxOptions{Domains: domains("tunnel")})
	var got []string
	for _, g := range gaps {
		got = append(got, string(g.Kind)+" "+g.Name)
	}
	want := []string{"wider tunnel", "stricter hasher", "stricter iwd", "wider sockets", "stricter sockets", "wider socket-options", "wider user-namespaces"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	const open = `these stay open: AF_SMC, as far as SELinux asks about it by rawip_socket, which other sockets have too; ` +
		`AF_ECONET, as far as SELinux asks about it by socket, which other sockets have too; ` +
		`AF_NETLINK protocol NETLINK_USERSOCK, as far as SELinux asks about it by netlink_socket, which other sockets have too; ` +
		`AF_INET protocol 900, which has no class that is known here`
	if diff := cmp.Diff(open, gaps[3].Text); diff != "" {
		t.Error(diff)
	}
	if gaps[0].Routes != nil {
		t.Errorf("a rule without algorithms opens AF_ALG by %v", gaps[0].Routes)
	}
}

// TestSELinuxZeroCopy: whoever holds AF_ALG has it with zero-copy.
func TestSELinuxZeroCopy(t *testing.T) {
	p := selinuxPlan()
	p.ZeroCopy = policy.Yes
	for rule, want := range map[string]bool{"iwd": true, "tunnel": false} {
		_, gaps, _ := SELinux(p, SELinuxOptions{Domains: domains(rule)})
		if got := slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Name == policy.GapZeroCopy }); got != want {
			t.Errorf("%s: %t", rule, got)
		}
	}
}

// TestSocketClasses names the class of one socket each, and sees that no name in
// the tables is misspelt.
func TestSocketClasses(t *testing.T) {
	for s, want := range map[seSocket]string{
		{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}:                         algClass,
		{unix.AF_UNIX, unix.SOCK_STREAM, 0}:                           "unix_stream_socket",
		{unix.AF_UNIX, unix.SOCK_RAW, 0}:                              "unix_dgram_socket",
		{unix.AF_UNIX, unix.SOCK_RDM, 0}:                              "socket",
		{unix.AF_INET, unix.SOCK_STREAM, 0}:                           "tcp_socket",
		{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}:         "tcp_socket",
		{unix.AF_INET, unix.SOCK_STREAM, 256}:                         "rawip_socket", // IPPROTO_SMC
		{unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP}:        "sctp_socket",
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}:             "udp_socket",
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE}:         "rawip_socket",
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6}:         "icmp_socket",
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}:              "rawip_socket",
		{unix.AF_INET, unix.SOCK_DCCP, 0}:                             "dccp_socket",
		{unix.AF_INET, unix.SOCK_PACKET, 0}:                           "packet_socket",
		{unix.AF_PACKET, unix.SOCK_DGRAM, 0}:                          "packet_socket",
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}:           "netlink_xfrm_socket",
		{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_CRYPTO}:       "netlink_crypto_socket",
		{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_USERSOCK}:     "netlink_socket",
		{unix.AF_ATMSVC, unix.SOCK_DGRAM, 0}:                          "atmsvc_socket",
		{unix.AF_DECnet, unix.SOCK_STREAM, 0}:                         "decnet_socket",
		{unix.AF_IB, unix.SOCK_STREAM, 0}:                             "socket",
		{uint32(len(afalg.Families())) + 100, unix.SOCK_SEQPACKET, 0}: "socket",
	} {
		if got := socketClass(s); got != want {
			t.Errorf("%+v: %s, want %s", s, got, want)
		}
	}
	if _, misspelt := familyClasses[unix.AF_UNSPEC]; misspelt || len(familyClasses) != 32 {
		t.Errorf("%d families with a class", len(familyClasses))
	}
	for _, class := range mixedClasses {
		if len(classMembers()[class]) == 0 {
			t.Errorf("%s has no sockets", class)
		}
	}
}
