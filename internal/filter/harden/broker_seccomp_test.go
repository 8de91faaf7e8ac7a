package harden

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// listenerRegions are the inputs in which the refusal of other listeners, and
// of pidfd_getfd, makes a result differ from its base.
func (c closing) listenerRegions(t *testing.T, abi afalg.ABI) []cbpf.Region {
	t.Helper()
	call := func(name string) cbpf.Region {
		nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
		if err != nil {
			t.Fatal(err)
		}
		return cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
	}
	return []cbpf.Region{
		call(callGetfd),
		call(callSeccomp).With(cbpf.ArgLow(1), cbpf.Between(listenerFlags, 0xffffffff)),
		call(callSeccomp).With(cbpf.ArgHigh(1), cbpf.Not(0)),
	}
}

// withHigh are arguments with and without the upper half, which an int $0x80 call
// brings along from the register.
const withHigh = uint64(0xdead) << 32

// TestListenerRefused asks every base's result on every ABI, as each runtime
// compiles it: flags of a listener are refused with EBUSY, with whatever upper
// halves, and the others are what they were.
func TestListenerRefused(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		parsed := parse(t, b.src)
		hardened, _, err := rewrite(parsed, brokerClosing(SocketcallDeny))
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range everyWay() {
			before, abis := compile(t, parsed, b.host, way)
			after, _ := compile(t, hardened, b.host, way)
			for _, abi := range abis {
				nr, err := seccomp.Number(callSeccomp, specs.Arch(abi.Arch))
				if err != nil {
					t.Fatal(err)
				}
				ask := func(f cbpf.Filter, flags uint64) string { return actionOf(t, f, abi, nr&^abi.Bit, 1, flags, 0x1000) }
				for flags := range uint64(64) {
					was := ask(before, flags)
					want := was
					if flags >= 8 && was == "ALLOW" {
						want = "ERRNO(16)"
					}
					if got := ask(after, flags); got != want {
						t.Errorf("%s, %s level %d: seccomp with flags %d on %s gives %s, want %s (base %s)", b.name, way.Runtime, way.Level, flags, abi.Name, got, want, was)
					}
					if got := ask(after, flags|withHigh); flags >= 8 && got != want {
						t.Errorf("%s, %s level %d: seccomp with flags %d and upper bits on %s gives %s, want %s", b.name, way.Runtime, way.Level, flags, abi.Name, got, want)
					}
				}
			}
			v, err := verify.NewListener(after, abis, verify.Directly)
			if err != nil || v.State != verify.Closed {
				t.Errorf("%s, %s level %d: a listener can be loaded: %v, %v (%v)", b.name, way.Runtime, way.Level, v.State, err, v.Witness)
			}
		}
	}
}

// TestListenerBases hardens bases with conditions of their own on seccomp and
// pidfd_getfd.
func TestListenerBases(t *testing.T) {
	const (
		head  = `"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[`
		deny  = `{"defaultAction":"SCMP_ACT_ERRNO",` + head + `{"names":["read","clone3"],"action":"SCMP_ACT_ALLOW"}`
		allow = `{"defaultAction":"SCMP_ACT_ALLOW",` + head + `{"names":["acct"],"action":"SCMP_ACT_ERRNO"}`
	)
	rule := func(action, args string, names ...string) string {
		return `,{"names":["` + strings.Join(names, `","`) + `"],"action":"SCMP_ACT_` + action + `","args":[` + args + `]}`
	}
	arg := func(index, op, value string) string {
		return `{"index":` + index + `,"op":"SCMP_CMP_` + op + `","value":` + value + `}`
	}
	// What seccomp(SET_MODE_FILTER) with the flags 0, 1, 4, 7 gives, and with 8.
	tests := []struct {
		name, src string
		low       [4]string
		listener  string
	}{
		{"permitted", deny + rule("ALLOW", "", "seccomp"), [4]string{"ALLOW", "ALLOW", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"permitted twice", deny + rule("ALLOW", "", "seccomp") + rule("ALLOW", "", "seccomp"), [4]string{"ALLOW", "ALLOW", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"logged", deny + rule("LOG", "", "seccomp"), [4]string{"LOG", "LOG", "LOG", "LOG"}, "ERRNO(16)"},
		{"not mentioned", deny, [4]string{"ERRNO(1)", "ERRNO(1)", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(1)"},
		{"denied by name", deny + `,{"names":["seccomp"],"action":"SCMP_ACT_ERRNO","errnoRet":13}`, [4]string{"ERRNO(13)", "ERRNO(13)", "ERRNO(13)", "ERRNO(13)"}, "ERRNO(13)"},
		{"for one operation", deny + rule("ALLOW", arg("0", "EQ", "1"), "seccomp"), [4]string{"ALLOW", "ALLOW", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"for another operation", deny + rule("ALLOW", arg("0", "EQ", "2"), "seccomp"), [4]string{"ERRNO(1)", "ERRNO(1)", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(1)"},
		{"without flags", deny + rule("ALLOW", arg("1", "EQ", "0"), "seccomp"), [4]string{"ALLOW", "ERRNO(1)", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(16)"},
		{"but one flag", deny + rule("ALLOW", arg("1", "NE", "4"), "seccomp"), [4]string{"ALLOW", "ALLOW", "ERRNO(1)", "ALLOW"}, "ERRNO(16)"},
		{"flags above", deny + rule("ALLOW", arg("1", "GE", "4"), "seccomp"), [4]string{"ERRNO(1)", "ERRNO(1)", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"a listener alone", deny + rule("ALLOW", arg("1", "EQ", "8"), "seccomp"), [4]string{"ERRNO(1)", "ERRNO(1)", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(16)"},
		{"up to a listener", deny + rule("ALLOW", arg("1", "LE", "8"), "seccomp"), [4]string{"ALLOW", "ALLOW", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"masked", deny + rule("ALLOW", `{"index":1,"op":"SCMP_CMP_MASKED_EQ","value":1,"valueTwo":1}`, "seccomp"), [4]string{"ERRNO(1)", "ALLOW", "ERRNO(1)", "ALLOW"}, "ERRNO(16)"},
		{"flags twice", deny + rule("ALLOW", arg("1", "EQ", "1")+","+arg("1", "EQ", "8"), "seccomp"), [4]string{"ERRNO(1)", "ALLOW", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(16)"},
		{"default allow", allow, [4]string{"ALLOW", "ALLOW", "ALLOW", "ALLOW"}, "ERRNO(16)"},
		{"default allow, denied", allow + rule("ERRNO", "", "seccomp"), [4]string{"ERRNO(1)", "ERRNO(1)", "ERRNO(1)", "ERRNO(1)"}, "ERRNO(1)"},
		{"default allow, killed", allow + rule("KILL_PROCESS", "", "seccomp"), [4]string{"KILL_PROCESS", "KILL_PROCESS", "KILL_PROCESS", "KILL_PROCESS"}, "KILL_PROCESS"},
		{"default allow, one flag denied", allow + rule("ERRNO", arg("1", "EQ", "4"), "seccomp"), [4]string{"ALLOW", "ALLOW", "ERRNO(1)", "ALLOW"}, "ERRNO(16)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parsed := parse(t, []byte(test.src+"]}"))
			c := brokerClosing(SocketcallDeny)
			hardened, _, err := rewrite(parsed, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range everyWay() {
				filter, abis := compile(t, hardened, hostOf(specs.ArchX86_64), way)
				for _, abi := range abis {
					nr, err := seccomp.Number(callSeccomp, specs.Arch(abi.Arch))
					if err != nil {
						t.Fatal(err)
					}
					var got [4]string
					for i, flags := range []uint64{0, 1, 4, 7} {
						got[i] = actionOf(t, filter, abi, nr&^abi.Bit, 1, flags)
					}
					if listener := actionOf(t, filter, abi, nr&^abi.Bit, 1, 8); got != test.low || listener != test.listener {
						t.Errorf("%s level %d on %s: flags 0, 1, 4, 7 give %v and 8 gives %s, want %v and %s", way.Runtime, way.Level, abi.Name, got, listener, test.low, test.listener)
					}
				}
				v, err := verify.NewListener(filter, abis, verify.Directly)
				if err != nil || v.State != verify.Closed {
					t.Errorf("%s level %d: a listener can be loaded: %v, %v", way.Runtime, way.Level, v.Witness, err)
				}
			}
		})
	}
}

// TestGetfdRefused: pidfd_getfd is refused where the base has it, and as the
// base refuses it where it does not.
func TestGetfdRefused(t *testing.T) {
	for name, want := range map[string]string{
		"docker/amd64": "ERRNO(1)", "docker/amd64 privileged": "ERRNO(38)", "podman/amd64": "ERRNO(1)", "none/amd64": "ERRNO(1)",
	} {
		b := named(t, name)
		hardened, _, err := rewrite(parse(t, b.src), brokerClosing(SocketcallDeny))
		if err != nil {
			t.Fatal(err)
		}
		filter, abis := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
		for _, abi := range abis {
			if got := actionOf(t, filter, abi, 438, 3, 4, 0); got != want {
				t.Errorf("%s: pidfd_getfd on %s gives %s, want %s", name, abi.Name, got, want)
			}
		}
	}
}

// TestListenerProof: a brokered profile without the refusals is none, whoever
// wrote it.
func TestListenerProof(t *testing.T) {
	permit := func(name string, args ...specs.LinuxSeccompArg) func(*profile.Profile) {
		return func(p *profile.Profile) { replace(p, name, rule(specs.ActAllow, name, args...)) }
	}
	const replaceable = "left to a listener that can be replaced"
	tests := []struct {
		name   string
		mutate func(p *profile.Profile)
		want   string
	}{
		{"as it is", func(*profile.Profile) {}, ""},
		{"masked by somebody else", func(p *profile.Profile) {
			replace(p, callSeccomp, rule(specs.ActAllow, callSeccomp, flags(specs.OpLessEqual, 7)))
		}, ""},
		{"no seccomp at all", func(p *profile.Profile) { replace(p, callSeccomp) }, ""},
		{"seccomp open", permit(callSeccomp), replaceable},
		{"seccomp logged", func(p *profile.Profile) { replace(p, callSeccomp, rule(specs.ActLog, callSeccomp)) }, replaceable},
		{"seccomp traced", func(p *profile.Profile) { replace(p, callSeccomp, rule(specs.ActTrace, callSeccomp)) }, replaceable},
		{"seccomp notified", func(p *profile.Profile) { replace(p, callSeccomp, rule(specs.ActNotify, callSeccomp)) }, replaceable},
		{"NEW_LISTENER alone is refused", permit(callSeccomp, flags(specs.OpNotEqual, 8)), replaceable},
		{"8 is permitted", permit(callSeccomp, flags(specs.OpLessEqual, 8)), replaceable},
		{"with the flags above", permit(callSeccomp, flags(specs.OpGreaterThan, 16)), replaceable},
		{"upper bits", permit(callSeccomp, flags(specs.OpGreaterThan, 1<<32-1)), replaceable},
		{"pidfd_getfd open", permit(callGetfd), "pidfd_getfd on x86-64 is open"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hardened, _, err := rewrite(parse(t, dockerBase(t)), brokerClosing(SocketcallDeny))
			if err != nil {
				t.Fatal(err)
			}
			test.mutate(hardened)
			hardened.ListenerPath = "/run/x"
			host := hostOf(specs.ArchX86_64, profile.DefaultCaps()...)
			resolved, err := hardened.On(host)
			if err != nil {
				t.Fatal(err)
			}
			err = Prove(testPlan("fips"), resolved, Options{Broker: "/run/x", Host: host})
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestBrokerCost is TestCost for the refusals that a broker needs: at most one
// instruction above Docker's default for a socket call, and none for others.
func TestBrokerCost(t *testing.T) {
	docker := named(t, "docker/amd64")
	plain, _ := compile(t, parse(t, docker.src), docker.host, seccomp.Options{Runtime: seccomp.Runc})
	for _, name := range []string{"docker/amd64", "docker/amd64 privileged", "podman/amd64"} {
		b := named(t, name)
		parsed := parse(t, b.src)
		hardened, _, err := rewrite(parsed, brokerClosing(SocketcallDeny))
		if err != nil {
			t.Fatal(err)
		}
		before, _ := compile(t, parsed, b.host, seccomp.Options{Runtime: seccomp.Runc})
		after, _ := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
		for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
			d := cbpf.Data{Nr: unix.SYS_SOCKET, Args: [6]uint64{family, 1}}
			is, limit := count(t, after, d), max(count(t, plain, d), count(t, before, d))+1
			if is > limit {
				t.Errorf("%s: socket(%d) takes %d instructions, at most %d", name, family, is, limit)
			}
		}
		for _, nr := range []uint32{unix.SYS_READ, unix.SYS_WRITE, unix.SYS_OPENAT, unix.SYS_FUTEX, unix.SYS_PIDFD_OPEN, unix.SYS_CLONE3} {
			if was, is := count(t, before, cbpf.Data{Nr: nr}), count(t, after, cbpf.Data{Nr: nr}); is > was {
				t.Errorf("%s: call %d takes %d instructions, base %d", name, nr, is, was)
			}
		}
		if was, is := count(t, before, cbpf.Data{Nr: unix.SYS_SECCOMP}), count(t, after, cbpf.Data{Nr: unix.SYS_SECCOMP}); is-was > 6 {
			t.Errorf("%s: seccomp takes %d instructions, base %d", name, is, was)
		}
	}
}
