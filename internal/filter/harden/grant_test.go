package harden

import (
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
)

// grantingPlan denies classes, and has rules that allow some of them.
func grantingPlan() *plan.Plan {
	p := manyClasses()
	p.Rules = []policy.Rule{
		{Name: "ipsec", Anyone: true, Sockets: []policy.Socket{{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"}}},
		{Name: "tls", Binaries: []policy.Binary{{Path: "/usr/sbin/nginx"}}, SocketOptions: []policy.SocketOption{{Level: "SOL_TCP", Option: "TCP_ULP"}}},
		{Name: "sandbox", Anyone: true, UserNamespaces: true},
		{Name: "part", Anyone: true, Sockets: []policy.Socket{{Family: "AF_PACKET", Type: "SOCK_DGRAM"}}},
	}
	return p
}

// TestGrantsOfClasses: a workload that holds a rule has what the rule allows and
// the base has, and nothing else; AF_ALG stays closed to it.
func TestGrantsOfClasses(t *testing.T) {
	t.Parallel()
	calls := map[string]struct {
		call string
		args [6]uint64
	}{
		"ipsec":   {"socket", [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}},
		"tls":     {"setsockopt", [6]uint64{3, unix.SOL_TCP, unix.TCP_ULP}},
		"sandbox": {"unshare", [6]uint64{unix.CLONE_NEWUSER}},
		"part":    {"socket", [6]uint64{unix.AF_PACKET, unix.SOCK_DGRAM}},
		"":        {"socket", [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}},
	}
	abi, _ := afalg.ABINamed("x86-64")
	for name, base := range small() {
		for _, grants := range [][]string{nil, {"ipsec"}, {"tls"}, {"sandbox"}, {"part"}, {"ipsec", "sandbox"}} {
			o := Options{Grants: grants, Host: hostOf(specs.ArchX86_64), Standing: []string{"tls"}}
			hardened, gaps, err := Harden(grantingPlan(), base, o)
			if err != nil {
				t.Fatalf("%s, %v: %v", name, grants, err)
			}
			if err := Prove(grantingPlan(), hardened, o); err != nil {
				t.Errorf("%s, %v: %v", name, grants, err)
			}
			if others := (Options{Host: o.Host}); len(grants) > 0 && grants[0] != "part" {
				if err := Prove(grantingPlan(), hardened, others); err == nil {
					t.Errorf("%s, %v: proved closed without a grant", name, grants)
				}
			}
			program, err := compileFor(hardened, o.Host, seccomp.Runc)
			if err != nil {
				t.Fatal(err)
			}
			for rule, c := range calls {
				nr, _ := numberOn(abi, c.call)
				a, _, err := cbpf.Program(program.Insns).Run(cbpf.Data{Arch: abi.Audit, Nr: nr, Args: c.args}, cbpf.Little)
				if err != nil {
					t.Fatal(err)
				}
				// A part of a family that is closed whole stays closed, and is a gap.
				if want := slices.Contains(grants, rule) && rule != "part"; passes(a) != want {
					t.Errorf("%s, granted %v: the call of %q is answered by %v", name, grants, rule, a)
				}
			}
			if slices.Contains(grants, "part") && !hasGap(gaps, plan.Stricter, "part") {
				t.Errorf("%s: no gap tells that a part of AF_PACKET stays closed: %v", name, gaps)
			}
		}
	}
}

func hasGap(gaps []plan.Gap, kind plan.GapKind, name string) bool {
	return slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Kind == kind && g.Name == name })
}

// TestGrantWithConditions: seccomp sees no binary, so that such a rule is wider
// than the policy, and has to be accepted by name.
func TestGrantWithConditions(t *testing.T) {
	t.Parallel()
	o := Options{Grants: []string{"tls"}, Host: hostOf(specs.ArchX86_64)}
	base := small()["denies"]
	if _, gaps, err := Harden(grantingPlan(), base, o); err == nil || !hasGap(gaps, plan.Wider, "tls") {
		t.Errorf("not accepted: %v, %v", gaps, err)
	}
	o.Accept = []string{"tls"}
	if _, _, err := Harden(grantingPlan(), base, o); err != nil {
		t.Error(err)
	}
}

// TestBaseIsNoWider: a grant opens no more than the base had.
func TestBaseIsNoWider(t *testing.T) {
	t.Parallel()
	base := profile.Profile{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []profile.Rule{
		rule(specs.ActAllow, "read"), rule(specs.ActAllow, "write"), rule(specs.ActAllow, "socket", equals(unix.AF_UNIX)),
	}}
	o := Options{Grants: []string{"ipsec", "sandbox"}, Host: hostOf(specs.ArchX86_64)}
	hardened, _, err := Harden(grantingPlan(), &base, o)
	if err != nil {
		t.Fatal(err)
	}
	filter, abis := compile(t, hardened, o.Host, seccomp.Options{Runtime: seccomp.Crun})
	for _, q := range verify.SocketQuestions(abis, afalg.Sockets{Family: unix.AF_NETLINK, Protocol: unix.NETLINK_XFRM, HasProtocol: true}) {
		if v, err := q.Ask(filter, verify.Options{}); err != nil || v.State != verify.Closed {
			t.Errorf("%s is %s: %v", v.Call.Name, v.State, err)
		}
	}
}

// TestRunFilterClosesClasses: so does the filter of a command; RunFilter proves
// it. A grant opens its class again.
func TestRunFilterClosesClasses(t *testing.T) {
	t.Parallel()
	xfrm := cbpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_NETLINK | 1<<32, unix.SOCK_RAW | 1<<32, unix.NETLINK_XFRM | 1<<32}}
	for _, s := range brokerWays {
		for _, grants := range [][]string{nil, {"ipsec"}} {
			insns, _, err := RunFilter(grantingPlan(), RunOptions{Arch: specs.ArchX86_64, Socketcall: s, Grants: grants})
			if err != nil {
				t.Fatal(err)
			}
			a, _, err := cbpf.Program(insns).Run(xfrm, cbpf.Little)
			if err != nil || passes(a) != (grants != nil) {
				t.Errorf("granted %v: %v is answered by %v (%v)", grants, xfrm, a, err)
			}
		}
	}
}

// TestErrnoOfTheDefault: the runtimes drop a denial that equals the default, and
// what is wider would permit the call then.
func TestErrnoOfTheDefault(t *testing.T) {
	t.Parallel()
	base := small()["denies"]
	for name, errno := range map[string]unix.Errno{
		policy.GapSockets: unix.EAFNOSUPPORT, policy.GapSocketOptions: unix.ENOPROTOOPT, policy.GapUserNamespaces: unix.EINVAL,
	} {
		number := uint(errno)
		base.DefaultErrnoRet = &number
		_, gaps, err := Harden(manyClasses(), base, Options{Host: hostOf(specs.ArchX86_64)})
		if err != nil || !hasGap(gaps, plan.Different, name) {
			t.Errorf("%v is the default: %v, gaps %v", errno, err, gaps)
		}
	}
}

// TestOptionsWithSocketcallKept: what keeps socketcall in a profile that allows by
// default keeps no socket option, of which no gap would tell.
func TestOptionsWithSocketcallKept(t *testing.T) {
	t.Parallel()
	set := cbpf.Data{Arch: unix.AUDIT_ARCH_I386, Nr: 102, Args: [6]uint64{socketcallSetsockopt, 0x1000}}
	for name, base := range small() {
		o := Options{Host: hostOf(specs.ArchX86_64), Socketcall: SocketcallKeep, Standing: []string{GapSocketcall}}
		if name == "denies" {
			base.Syscalls = append(base.Syscalls, rule(specs.ActAllow, "socketcall"))
		}
		hardened, gaps, err := Harden(manyClasses(), base, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		program, err := compileFor(hardened, o.Host, seccomp.Runc)
		if err != nil {
			t.Fatal(err)
		}
		a, _, err := cbpf.Program(program.Insns).Run(set, cbpf.Little)
		if err != nil || passes(a) != hasGap(gaps, plan.Wider, GapSocketcall) {
			t.Errorf("%s: %v is answered by %v (%v); gaps %v", name, set, a, err, gaps)
		}
	}
}

// TestGrantUnderHardenedDefault: a platform's default was hardened before, without
// grants. The container that holds a rule has what hardening took, and not what the
// default lacks.
func TestGrantUnderHardenedDefault(t *testing.T) {
	t.Parallel()
	p := grantingPlan()
	p.Rules = append(p.Rules, policy.Rule{Name: "smc", Anyone: true, Sockets: []policy.Socket{{Family: "AF_SMC"}}})
	grants := []string{"ipsec", "tls", "sandbox", "smc"}
	calls := []cbpf.Data{
		{Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}},
		{Nr: unix.SYS_SETSOCKOPT, Args: [6]uint64{3, unix.SOL_TCP, unix.TCP_ULP}},
		{Nr: unix.SYS_UNSHARE, Args: [6]uint64{unix.CLONE_NEWUSER}},
		{Nr: unix.SYS_CLONE, Args: [6]uint64{unix.CLONE_NEWUSER}},
		{Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_SMC, unix.SOCK_STREAM}},
		{Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_INET6, unix.SOCK_STREAM, 256}},
		{Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_PACKET, unix.SOCK_RAW}},
		{Nr: unix.SYS_SOCKET, Args: [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}},
		{Nr: unix.SYS_SETSOCKOPT, Args: [6]uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_BPF}},
		{Nr: unix.SYS_CLONE3},
	}
	for _, name := range []string{"docker/amd64", "podman/amd64", "none/amd64"} {
		b := named(t, name)
		before, _ := compile(t, parse(t, b.src), b.host, seccomp.Options{Runtime: seccomp.Crun})
		o := Options{Host: b.host}
		installed, _, err := Harden(p, parse(t, b.src), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		o.Grants, o.Standing = grants, []string{"tls"}
		hardened, _, err := Harden(p, installed, o)
		if err != nil {
			t.Errorf("%s, granted: %v", name, err)
			continue
		}
		after, _ := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Crun})
		for i, d := range calls {
			d.Arch = unix.AUDIT_ARCH_X86_64
			was, _, _ := before.Run(d, cbpf.Little)
			is, _, err := after.Run(d, cbpf.Little)
			if opened := i < 6; err != nil || passes(is) != (opened && passes(was)) {
				t.Errorf("%s: %v was %v and is %v (%v)", name, d, was, is, err)
			}
		}
	}
}
