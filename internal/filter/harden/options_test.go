package harden

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestGrant(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		o := task{Options{Tool: "test", Grants: []string{"fips"}, Socketcall: SocketcallDeny, Host: b.host}, b.src}
		p := testPlan("fips", "other")
		if _, _, err := o.run(p); err == nil || !strings.Contains(err.Error(), "--accept fips") {
			t.Fatalf("%s: a wider gap was not refused: %v", b.name, err)
		}
		o.Accept = []string{"fips"}
		hardened, gaps, err := o.run(p)
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		if gaps[0].Kind != plan.Wider || gaps[0].Name != "fips" || !slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Kind == plan.Stricter && g.Name == "other" }) {
			t.Errorf("%s: gaps %v", b.name, gaps)
		}
		filter, abis := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
		verdicts, err := verify.Routes(filter, abis, afalg.Family, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			want := verify.Closed
			if slices.Contains(gaps[0].Routes, v.Call.Route) {
				want = verify.Open
			}
			if v.State != want {
				t.Errorf("%s: %s (%s on %s) is %s, want %s", b.name, v.Call.Route, v.Call.Name, v.Call.ABI.Name, v.State, want)
			}
		}
	}
}

// A base that was hardened before is opened for a grant, as a default profile of a
// platform has to be.
func TestGrantOfAHardenedBase(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		o := task{Options{Tool: "test", Socketcall: SocketcallDeny, Host: b.host}, b.src}
		p := testPlan("fips")
		closed, _, err := o.run(p)
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		o.Grants, o.Accept = []string{"fips"}, []string{"fips"}
		opened, _, err := Harden(p, closed, o.Options)
		if err != nil {
			t.Fatalf("%s, hardened: %v", b.name, err)
		}
		for result, want := range map[*profile.Profile]verify.State{closed: verify.Closed, opened: verify.Open} {
			filter, abis := compile(t, result, b.host, seccomp.Options{Runtime: seccomp.Runc})
			verdicts, err := verify.Routes(filter, abis, afalg.Family, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range verdicts {
				if v.Call.Route == afalg.RouteSocket && v.State != want {
					t.Errorf("%s: %s is %s, want %s", b.name, v.Call.Route, v.State, want)
				}
			}
		}
	}
}

func TestSocketcallKeep(t *testing.T) {
	o := task{Options{Tool: "test", Socketcall: SocketcallKeep, Host: hostOf(specs.ArchX86_64)}, dockerBase(t)}
	_, _, err := o.run(testPlan())
	if err == nil || !strings.Contains(err.Error(), "--accept compat-socketcall") || !strings.Contains(err.Error(), "deny network alg,") {
		t.Fatalf("keeping socketcall was not refused by name: %v", err)
	}
	o.Accept = []string{string(afalg.RouteCompatSocketcall)}
	hardened, _, err := o.run(testPlan())
	if err != nil {
		t.Fatal(err)
	}
	filter, _ := compile(t, hardened, o.Host, seccomp.Options{Runtime: seccomp.Crun})
	action, _, err := filter.Run(cbpf.Data{Arch: unix.AUDIT_ARCH_I386, Nr: 102, Args: [6]uint64{1}}, cbpf.EndianOf(false))
	if err != nil || action.String() != "ALLOW" {
		t.Errorf("socketcall(1) gives %v, %v", action, err)
	}
}

// TestSeccompGaps: every departure from the policy, or from the base, has a
// name; none is made up.
func TestSeccompGaps(t *testing.T) {
	const x64, arm64, s390x = specs.ArchX86_64, specs.ArchAARCH64, specs.ArchS390X
	eperm := testPlan()
	eperm.SocketErrno = plan.Errno{Name: "EPERM", Number: uint32(unix.EPERM)}
	tests := []struct {
		name  string
		plan  *plan.Plan
		base  []byte
		arch  specs.Arch
		keeps bool // conditions
		keep  Socketcall
		want  []string
	}{
		{"docker", testPlan(), dockerBase(t), x64, false, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"docker, no ABI with socketcall", testPlan(), dockerBase(t), arm64, false, SocketcallDeny,
			[]string{"stricter socket-highbits", "different socket-highbits"}},
		{"docker, all machines", testPlan(), dockerBase(t), arm64, true, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"docker, errno of the base", eperm, dockerBase(t), x64, false, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different compat-socketcall"}},
		{"docker, keep", testPlan(), dockerBase(t), x64, false, SocketcallKeep,
			[]string{"wider compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"podman", testPlan(), readFile(t, podmanProfile), x64, false, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits"}},
		{"none", testPlan(), noneBase(t, x64), x64, false, SocketcallDeny, []string{"stricter compat-socketcall"}},
		{"none, keep", testPlan(), noneBase(t, x64), x64, false, SocketcallKeep, []string{"stricter compat-socketcall"}},
		{"none, keep where it is native", testPlan(), noneBase(t, s390x), s390x, false, SocketcallKeep, []string{"wider compat-socketcall"}},
		{"none on arm64", testPlan(), noneBase(t, arm64), arm64, false, SocketcallDeny, nil},
		{"a rule that nobody holds", testPlan("fips"), noneBase(t, arm64), arm64, false, SocketcallDeny, []string{"stricter fips"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := task{Options{Conditional: test.keeps, Socketcall: test.keep, Host: hostOf(test.arch)}, test.base}
			if test.keep == SocketcallKeep && strings.HasPrefix(strings.Join(test.want, ""), "wider") {
				o.Accept = []string{string(afalg.RouteCompatSocketcall)}
			}
			_, gaps, err := o.run(test.plan)
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

// TestZeroCopyGap: whoever is given AF_ALG has it with zero-copy, which a policy
// may deny.
func TestZeroCopyGap(t *testing.T) {
	p := testPlan("fips")
	p.ZeroCopy = policy.Yes
	for _, broker := range []string{"", "/run/agent.sock"} {
		o := task{Options{Broker: broker, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, dockerBase(t)}
		if _, _, err := o.run(p); err != nil {
			t.Errorf("broker %q, nobody holds a rule: %v", broker, err)
		}
		o.Grants, o.Standing = []string{"fips"}, []string{"fips"}
		_, _, err := o.run(p)
		var open *plan.UnacceptedError
		if !errors.As(err, &open) || len(open.Gaps) != 1 || open.Gaps[0].Name != policy.GapZeroCopy {
			t.Errorf("broker %q: %v", broker, err)
		}
		o.Accept = []string{policy.GapZeroCopy}
		if _, _, err := o.run(p); err != nil {
			t.Errorf("broker %q, accepted: %v", broker, err)
		}
	}
}

// TestStrictExecGap: a broker denies what it cannot tell, and a static profile
// opens it.
func TestStrictExecGap(t *testing.T) {
	p := testPlan("fips", "other")
	p.Rules[0].StrictExec = true
	p.ZeroCopy = policy.Yes // no matter where nobody can use the rule
	gapOf := func(gaps []plan.Gap) string {
		i := slices.IndexFunc(gaps, func(g plan.Gap) bool { return g.Name == "fips" })
		return string(gaps[i].Kind) + ": " + gaps[i].Text
	}
	o := task{Options{Grants: []string{"fips"}, Broker: "/run/agent.sock", Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, dockerBase(t)}
	_, brokered, err := o.run(p)
	if err != nil {
		t.Fatal(err)
	}
	_, running, err := RunFilter(p, RunOptions{Arch: specs.ArchX86_64, Grants: o.Grants})
	if err != nil {
		t.Fatal(err)
	}
	o.Broker, o.Accept = "", []string{"fips", policy.GapZeroCopy}
	_, static, err := o.run(p)
	if err != nil {
		t.Fatal(err)
	}
	const nobody = "stricter: the rule holds for nobody: it says strict-exec, and the broker cannot see who steers an executable; only the kernel half can"
	for name, tt := range map[string]struct{ got, want string }{
		"broker": {gapOf(brokered), nobody},
		"run":    {gapOf(running), nobody},
		"static": {gapOf(static), "wider: a static profile sees neither binary nor algorithm: AF_ALG is open whole to the whole workload, and to whoever steers its binaries, by LD_PRELOAD or as a tracer, which strict-exec denies; give the rule to a workload of its own"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %s\nwant %s", name, tt.got, tt.want)
		}
	}
}

func TestAcceptOfNothing(t *testing.T) {
	o := task{Options{Accept: []string{"fips"}, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, dockerBase(t)}
	if _, _, err := o.run(testPlan("fips")); err == nil || !strings.Contains(err.Error(), "no wider gap of that name") {
		t.Errorf("got %v", err)
	}
}

func TestKeepsConditions(t *testing.T) {
	o := task{Options{Tool: "afalg-policy test", Conditional: true, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, dockerBase(t)}
	hardened, _, err := o.run(testPlan())
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := o.run(testPlan())
	if err != nil || toJSON(t, hardened) != toJSON(t, again) {
		t.Errorf("two runs differ (%v)", err)
	}
	before, after := parse(t, o.base), hardened
	_, rest := split(before.Syscalls)
	if got := after.Syscalls[len(after.Syscalls)-len(rest):]; toJSON(t, got) != toJSON(t, rest) {
		t.Error("rules that hardening is not about have changed")
	}
	if toJSON(t, before.ArchMap) != toJSON(t, after.ArchMap) {
		t.Error("profile.ArchMap has changed")
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRefusedBases(t *testing.T) {
	tests := []struct{ name, src, want string }{
		{"listener", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x","syscalls":[]}`, "listener of its own (/run/x)"},
		{"notify", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"SCMP_ACT_NOTIFY"}]}`, "syscalls[0] (bind): SCMP_ACT_NOTIFY"},
		{"notify of no call", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_NOTIFY"}]}`, "syscalls[0] (no call): SCMP_ACT_NOTIFY"},
		{"default notify", `{"defaultAction":"SCMP_ACT_NOTIFY","syscalls":[]}`, "the default action is SCMP_ACT_NOTIFY"},
		{"action", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"ALLOW"}]}`, `unknown action "ALLOW"`},
		{"default action", `{"defaultAction":"deny","syscalls":[]}`, `1:18: unknown action "deny"`},
		{"no default", `{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO"}]}`, "no defaultAction"},
		{"operator", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"=="}]}]}`, `unknown operator "=="`},
		{"index", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}`, "1:108: argument 6"},
		{"duplicate key", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\n \"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[]}", `2:2: key "defaultAction" stands twice`},
		{"key in two cases", `{"defaultAction":"SCMP_ACT_ALLOW","DefaultAction":"SCMP_ACT_ERRNO","syscalls":[]}`, `1:35: key "DefaultAction": runc reads it as "defaultAction"`},
		{"unknown key", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[],"extends":"x"}`, `1:49: unknown key "extends"`},
		{"name and names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}`, "both name and names"},
		{"no name", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}`, "without a system call name"},
		{"errno", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"EWHAT"}]}`, `unknown errno "EWHAT"`},
		{"two errnos", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"EPERM","errnoRet":2}]}`, "EPERM is 1, and the number beside it is 2"},
		{"kernel", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}`, `kernel version "new"`},
		{"both arch lists", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[]}],"syscalls":[]}`, "both architectures and archMap"},
		{"architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_PDP11"],"syscalls":[]}`, `unknown architecture "SCMP_ARCH_PDP11"`},
		{"mixed permissions", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_LOG"}]}`, "would let it swallow what is added"},
		{"binary junk", "\x7fELF\x02\x01", "neither JSON nor YAML"},
		{"truncated", `{"defaultAction":`, "unexpected end of JSON input"},
		{"not an object", `[]`, "the JSON text is no object"},
		{"trailing", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]} {}`, "after top-level value"},
		{"huge", strings.Repeat(" ", jsontext.Max+1), "the limit is"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := task{Options{Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, []byte(test.src)}
			hardened, _, err := o.run(testPlan())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if hardened != nil {
				t.Error("something was generated")
			}
		})
	}
}
