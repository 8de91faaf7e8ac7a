package harden

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func brokerOptions(b []byte) task {
	return task{Options{
		Tool: "test", Grants: []string{"fips"}, Socketcall: SocketcallDeny,
		Broker: "/run/afalg-policy.sock", Host: hostOf(specs.ArchX86_64),
	}, b}
}

// TestBrokerBases hardens bases with conditions of their own, and asks for
// single calls.
func TestBrokerBases(t *testing.T) {
	// Every real profile permits a call without a condition, which libseccomp
	// needs to compile the others right, and one above all that are rewritten.
	const deny = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[` +
		`{"names":["read","clone3"],"action":"SCMP_ACT_ALLOW"},`
	const allow = `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[`
	permit := func(name, args string) string {
		return `{"names":["` + name + `"],"action":"SCMP_ACT_ALLOW","args":[` + args + `]}`
	}
	refuse := func(name, args string) string {
		return `{"names":["` + name + `"],"action":"SCMP_ACT_ERRNO","errnoRet":13,"args":[` + args + `]}`
	}
	type call struct {
		nr   uint32
		args []uint64
		want string
	}
	const high = 1 << 32
	tests := []struct {
		name, src string
		calls     []call
		missing   []string
	}{
		{"accept for one descriptor", deny + permit("accept", `{"index":0,"value":3,"op":"SCMP_CMP_EQ"}`) + `]}`, []call{
			{43, []uint64{3, 0x1000}, "ALLOW"}, {43, []uint64{3, 0}, "NOTIFY"}, {43, []uint64{4, 0}, "ERRNO(1)"}, {43, []uint64{4, 1}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept4"}},
		{"bind of two lengths", deny + permit("bind", `{"index":2,"value":16,"op":"SCMP_CMP_EQ"},{"index":2,"value":28,"op":"SCMP_CMP_EQ"}`) + `]}`, []call{
			{49, []uint64{3, 1, 16}, "ALLOW"}, {49, []uint64{3, 1, 28}, "ALLOW"}, {49, []uint64{3, 1, 88}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept", "accept4"}},
		{"bind of 88 bytes alone", deny + permit("bind", `{"index":2,"value":88,"op":"SCMP_CMP_EQ"}`) + `]}`, []call{
			{49, []uint64{3, 1, 88}, "NOTIFY"}, {49, []uint64{3, 1, 16}, "ERRNO(1)"},
		}, []string{"setsockopt", "accept", "accept4"}},
		{"setsockopt below a level", deny + permit("setsockopt", `{"index":1,"value":279,"op":"SCMP_CMP_LT"}`) + `]}`, []call{
			{54, []uint64{3, 1}, "ALLOW"}, {54, []uint64{3, 279}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept", "accept4"}},
		{"alternatives on other arguments", deny + permit("accept4", `{"index":0,"value":3,"op":"SCMP_CMP_EQ"},{"index":0,"value":5,"op":"SCMP_CMP_EQ"}`) + `]}`, []call{
			{288, []uint64{3, 0}, "NOTIFY"}, {288, []uint64{5, 1}, "ALLOW"}, {288, []uint64{4, 0}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept"}},
		{"a denial inside", deny + permit("bind", ``) + "," + refuse("listen", ``) + "," + permit("accept", ``) + `]}`, []call{
			{49, []uint64{3, 1, 88 | high}, "ALLOW"}, {50, []uint64{3}, "ERRNO(13)"},
		}, []string{"setsockopt", "accept4"}},
		{"prctl", deny + permit("prctl", ``) + `]}`, []call{
			{157, []uint64{15}, "ALLOW"}, {157, []uint64{35}, "ERRNO(1)"}, {157, []uint64{35 | high}, "ERRNO(1)"}, {157, []uint64{36}, "ALLOW"},
			{157, []uint64{unix.PR_SET_PTRACER}, "ALLOW"}, {157, []uint64{unix.PR_SET_VMA}, "ALLOW"}, {157, []uint64{unix.PR_GET_AUXV}, "ALLOW"},
			{1<<30 | 157, []uint64{35}, "ERRNO(1)"}, {1<<30 | 157, []uint64{35 | high}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept", "accept4"}},
		{"prctl for one option", deny + permit("prctl", `{"index":0,"value":15,"op":"SCMP_CMP_EQ"}`) + `]}`, []call{
			{157, []uint64{15}, "ALLOW"}, {157, []uint64{35}, "ERRNO(1)"}, {157, []uint64{16}, "ERRNO(1)"},
		}, []string{"bind", "setsockopt", "accept", "accept4"}},
		{"default allow", allow + `]}`, []call{
			{49, []uint64{3, 1, 88}, "NOTIFY"}, {49, []uint64{3, 1, 88 | high}, "NOTIFY"}, {49, []uint64{3, 1, 16}, "ALLOW"},
			{43, []uint64{3, 0}, "NOTIFY"}, {43, []uint64{3, high}, "ALLOW"}, {288, []uint64{3, 0}, "NOTIFY"}, {288, []uint64{3, 0x1000}, "ALLOW"},
			{54, []uint64{3, 279}, "NOTIFY"}, {54, []uint64{3, 1}, "ALLOW"}, {41, []uint64{38, 5}, "NOTIFY"}, {41, []uint64{38 | high, 5}, "NOTIFY"},
			{41, []uint64{2, 1}, "ALLOW"}, {53, []uint64{38}, "ERRNO(97)"}, {53, []uint64{1}, "ALLOW"},
			{157, []uint64{35}, "ERRNO(1)"}, {157, []uint64{35 | high}, "ERRNO(1)"}, {157, []uint64{34}, "ALLOW"},
		}, nil},
		{"default allow, bind refused", allow + refuse("bind", ``) + `]}`, []call{
			{49, []uint64{3, 1, 88}, "ERRNO(13)"}, {49, []uint64{3, 1, 16}, "ERRNO(13)"},
		}, []string{"bind"}},
	}
	x64, _ := afalg.ABIOf("SCMP_ARCH_X86_64")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := brokerOptions([]byte(test.src))
			hardened, gaps, err := o.run(testPlan("fips"))
			if err != nil {
				t.Fatal(err)
			}
			f, err := asRun(t, hardened)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range test.calls {
				if got := actionOf(t, f, x64, c.nr, c.args...); got != c.want {
					t.Errorf("call %d%#x gives %s, want %s", c.nr, c.args, got, c.want)
				}
			}
			var missing []string
			for _, g := range gaps {
				if strings.Contains(g.Text, "the base refuses the call") {
					missing = append(missing, g.Name)
				}
			}
			if !slices.Equal(missing, test.missing) {
				t.Errorf("missing %v, want %v", missing, test.missing)
			}
		})
	}
}

// TestBrokerRefusals: what cannot be done exactly is not done.
func TestBrokerRefusals(t *testing.T) {
	const deny, allow = `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[`, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[`
	docker := string(dockerBase(t))
	none := string(noneBase(t, specs.ArchX86_64))

	tests := []struct {
		name, src string
		change    func(*task)
		want      string
	}{
		{"compared already", deny + `{"names":["bind"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":128,"op":"SCMP_CMP_LE"}]}]}`, nil,
			"a rule for bind compares argument 2 already (SCMP_CMP_LE 128)"},
		{"compared already, alternatives", deny + `{"names":["bind"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":2,"op":"SCMP_CMP_NE"}]}]}`, nil,
			"a rule for bind compares argument 2 already (SCMP_CMP_NE 2)"},
		{"two permissive actions", allow + `{"names":["accept"],"action":"SCMP_ACT_LOG"}]}`, nil, "a rule gives accept the action SCMP_ACT_LOG"},
		{"two permissive actions for prctl", allow + `{"names":["prctl"],"action":"SCMP_ACT_LOG"}]}`, nil, "a rule gives prctl the action SCMP_ACT_LOG"},
		{"own listener", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x","syscalls":[]}`, nil, "listener of its own (/run/x)"},
		{"keep", none, func(o *task) { o.Socketcall = SocketcallKeep }, "socketcall cannot be kept"},
		{"no broker", docker, func(o *task) { o.Socketcall, o.Broker, o.Grants = SocketcallBroker, "", nil }, "left to the broker, and there is none"},
		{"unknown socketcall", docker, func(o *task) { o.Socketcall = "maybe" }, `unknown treatment of socketcall "maybe"`},
		{"accept of a grant", docker, func(o *task) { o.Accept = []string{"fips"} }, "no wider gap of that name"},
		{"relative", docker, func(o *task) { o.Broker = "run/a.sock" }, "must be absolute"},
		{"long", docker, func(o *task) { o.Broker = "/" + strings.Repeat("a", 107) }, "a path of 108 bytes, where a Unix socket takes 107"},
		{"NUL", docker, func(o *task) { o.Broker = "/run/\x00a" }, "control characters"},
		{"newline", docker, func(o *task) { o.Broker = "/run/\n" }, "control characters"},
		{"not UTF-8", docker, func(o *task) { o.Broker = "/run/\xff" }, "not UTF-8"},
		{"socketcall in part", deny + `{"names":["socketcall"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`,
			func(o *task) { o.Socketcall = SocketcallBroker }, "lets only some calls of socketcall through"},
		{"socketcall with a condition", deny + `{"names":["socketcall"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_KILL"]}}]}`,
			func(o *task) { o.Socketcall = SocketcallBroker }, "conditions besides the number of the call"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := brokerOptions([]byte(test.src))
			if test.change != nil {
				test.change(&o)
			}
			hardened, _, err := o.run(testPlan("fips"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if hardened != nil {
				t.Error("something was generated")
			}
		})
	}
}

// TestBrokerProof mutates hardened profiles: each fault has to be found before
// anything is written.
func TestBrokerProof(t *testing.T) {
	h := hostOf(specs.ArchX86_64)
	tests := []struct {
		name   string
		mutate func(p *profile.Profile)
		want   string
	}{
		{"bind is let through where the base refuses it", func(p *profile.Profile) {
			replace(p, "bind", rule(specs.ActAllow, "bind", compare(0, specs.OpLessThan, 9)))
		},
			"bind on x86-64 is let through"},
		{"bind is refused", func(p *profile.Profile) { replace(p, "bind") }, "bind on x86-64 is let through"},
		{"another call is notified", func(p *profile.Profile) { replace(p, "listen", rule(specs.ActNotify, "listen")) }, "notified of other calls"},
		{"every bind is notified", func(p *profile.Profile) { replace(p, "bind", rule(specs.ActNotify, "bind")) }, "notified of other calls"},
		{"prctl is open", func(p *profile.Profile) { replace(p, "prctl", rule(specs.ActAllow, "prctl")) }, "prctl(PR_SET_MM) on x86-64 is open"},
		{"prctl is open to high bits", func(p *profile.Profile) {
			replace(p, "prctl", rule(specs.ActAllow, "prctl", compare(0, specs.OpNotEqual, unix.PR_SET_MM)))
		}, "prctl(PR_SET_MM) on x86-64 is open"},
		{"nothing reaches the broker", func(p *profile.Profile) { replace(p, "socket", rule(specs.ActAllow, "socket", equals(2))) },
			"socket(AF_ALG) on x86-64 is not left to the broker but closed"},
		{"socket is open", func(p *profile.Profile) { replace(p, "socket", rule(specs.ActAllow, "socket")) },
			"socket(AF_ALG) on x86-64 is not left to the broker but open"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			base := parse(t, dockerBase(t))
			c := brokerClosing(SocketcallDeny)
			hardened, _, err := rewrite(base, c)
			if err != nil {
				t.Fatal(err)
			}
			test.mutate(hardened)
			err = brokerProof(c, base, hardened, h)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	base := parse(t, dockerBase(t))
	c := brokerClosing(SocketcallDeny)
	hardened, _, err := rewrite(base, c)
	if err != nil {
		t.Fatal(err)
	}
	replace(hardened, "socketcall", rule(specs.ActNotify, "socketcall"))
	if err := prove(hardened, h, c); err == nil || !strings.Contains(err.Error(), "socketcall on i386 still reaches AF_ALG (left to a listener") {
		t.Errorf("socketcall notified, where it is to be denied: %v", err)
	}
}

// brokerProof proves what a broker relies on, and nothing else.
func brokerProof(c closing, base, hardened *profile.Profile, h profile.Host) error {
	before, err := compileFor(base, h, seccomp.Runc)
	if err != nil {
		return err
	}
	after, err := compileFor(hardened, h, seccomp.Runc)
	if err != nil {
		return err
	}
	return c.proveBrokered(before, after, change{})
}

// replace puts other rules in the place of those of a call.
func replace(p *profile.Profile, name string, by ...profile.Rule) {
	var rules []profile.Rule
	for _, r := range p.Syscalls {
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return n == name })
		if len(r.Names) > 0 {
			rules = append(rules, r)
		}
	}
	p.Syscalls = append(by, rules...)
}

func TestBrokerGaps(t *testing.T) {
	const x64, arm64 = specs.ArchX86_64, specs.ArchAARCH64
	tests := []struct {
		name string
		base []byte
		arch specs.Arch
		how  Socketcall
		want []string
	}{
		{"docker", dockerBase(t), x64, SocketcallDeny, []string{"stricter other", "stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"docker, broker", dockerBase(t), x64, SocketcallBroker, []string{"stricter other", "stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"docker, keep", dockerBase(t), x64, SocketcallKeep, []string{"stricter other", "wider compat-socketcall", "stricter socket-highbits", "different socket-highbits", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"podman", readFile(t, podmanProfile), x64, SocketcallDeny, []string{"stricter other", "stricter compat-socketcall", "stricter socket-highbits", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"none", noneBase(t, x64), x64, SocketcallDeny, []string{"stricter other", "stricter compat-socketcall", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"none, broker", noneBase(t, x64), x64, SocketcallBroker, []string{"stricter other", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
		{"none on arm64", noneBase(t, arm64), arm64, SocketcallDeny, []string{"stricter other", "stricter prctl-set-mm", "stricter seccomp-listener", "stricter pidfd_getfd"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := brokerOptions(test.base)
			o.Socketcall, o.Host = test.how, hostOf(test.arch)
			if test.how == SocketcallKeep {
				o.Accept = []string{string(afalg.RouteCompatSocketcall)}
			}
			_, gaps, err := o.run(testPlan("fips", "other"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, g := range gaps {
				got = append(got, string(g.Kind)+" "+g.Name)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestBrokerListener: every output names the socket and the grants, in a form
// that the agent reads.
func TestBrokerListener(t *testing.T) {
	for _, conditional := range []bool{false, true} {
		o := brokerOptions(dockerBase(t))
		o.Conditional = conditional
		p, _, err := o.run(testPlan("fips"))
		if err != nil {
			t.Fatal(err)
		}
		checkListener(t, p.ListenerPath, p.ListenerMetadata)
		for _, r := range p.Syscalls {
			if r.Action == p.DefaultAction && r.ErrnoRet == nil || p.DefaultAction == specs.ActNotify {
				t.Errorf("conditional %t: a rule or the default that no runtime keeps: %+v", conditional, r)
			}
		}
	}
}

func checkListener(t *testing.T, path, metadata string) {
	t.Helper()
	if path != "/run/afalg-policy.sock" {
		t.Errorf("listener %q", path)
	}
	m, err := plan.ParseMetadata(metadata)
	if err != nil || m.Policy != "sha256:0" || !slices.Equal(m.Grants, []string{"fips"}) {
		t.Errorf("metadata %q: %+v, %v", metadata, m, err)
	}
}

// TestBrokerConditions: a base whose conditions overlap the broker's part is
// refused, and the error says what, where, and what to do.
func TestBrokerConditions(t *testing.T) {
	t.Parallel()
	for call, args := range map[string]string{
		"bind":       `{"index":1,"value":0,"op":"SCMP_CMP_EQ"}`,
		"accept":     `{"index":1,"value":0,"op":"SCMP_CMP_EQ"}`,
		"setsockopt": `{"index":0,"value":3,"op":"SCMP_CMP_GE"}`,
	} {
		o := task{Options: Options{Host: hostOf(specs.ArchX86_64), Socketcall: SocketcallDeny, Broker: "/run/agent.sock"}}
		o.base = fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
			{"names":["reboot"],"action":"SCMP_ACT_ERRNO"},
			{"names":[%q],"action":"SCMP_ACT_ERRNO","errnoRet":13,"args":[%s]}]}`, call, args)
		_, _, err := o.run(testPlan())
		want := "the base has conditions on them: syscalls[1] (" + call + "); permit or deny these calls whole, or harden without a broker"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", call, err, want)
		}
	}
}
