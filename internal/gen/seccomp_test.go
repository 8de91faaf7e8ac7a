package gen

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

func TestGrant(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		o := SeccompOptions{Common: Common{Tool: "test", Grants: []string{"fips"}}, Base: b.src, Format: FormatOCI, Socketcall: SocketcallDeny, Host: b.host}
		p := testPlan("fips", "other")
		if _, _, err := Seccomp(p, o); err == nil || !strings.Contains(err.Error(), "--accept fips") {
			t.Fatalf("%s: a wider gap was not refused: %v", b.name, err)
		}
		o.Accept = []string{"fips"}
		files, gaps, err := Seccomp(p, o)
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		if gaps[0].Kind != Wider || gaps[0].Name != "fips" || !slices.ContainsFunc(gaps, func(g Gap) bool { return g.Kind == Stricter && g.Name == "other" }) {
			t.Errorf("%s: gaps %v", b.name, gaps)
		}
		filter, abis := compile(t, parse(t, files[0].Data), b.host, seccomp.Options{Runtime: seccomp.Runc})
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

func TestSocketcallKeep(t *testing.T) {
	o := SeccompOptions{Common: Common{Tool: "test"}, Base: dockerBase(t), Format: FormatOCI, Socketcall: SocketcallKeep, Host: hostOf(specs.ArchX86_64)}
	_, _, err := Seccomp(testPlan(), o)
	if err == nil || !strings.Contains(err.Error(), "--accept compat-socketcall") || !strings.Contains(err.Error(), "deny network alg,") {
		t.Fatalf("keeping socketcall was not refused by name: %v", err)
	}
	o.Accept = []string{string(afalg.RouteCompatSocketcall)}
	files, _, err := Seccomp(testPlan(), o)
	if err != nil {
		t.Fatal(err)
	}
	filter, _ := compile(t, parse(t, files[0].Data), o.Host, seccomp.Options{Runtime: seccomp.Crun})
	action, _, err := filter.Run(bpf.Data{Arch: unix.AUDIT_ARCH_I386, Nr: 102, Args: [6]uint64{1}}, bpf.EndianOf(false))
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
		name   string
		plan   *plan.Plan
		base   []byte
		arch   specs.Arch
		format Format
		keep   Socketcall
		want   []string
	}{
		{"docker", testPlan(), dockerBase(t), x64, FormatOCI, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"docker, no ABI with socketcall", testPlan(), dockerBase(t), arm64, FormatOCI, SocketcallDeny,
			[]string{"stricter socket-highbits", "different socket-highbits"}},
		{"docker, all machines", testPlan(), dockerBase(t), arm64, FormatDocker, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"docker, errno of the base", eperm, dockerBase(t), x64, FormatOCI, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits", "different compat-socketcall"}},
		{"docker, keep", testPlan(), dockerBase(t), x64, FormatOCI, SocketcallKeep,
			[]string{"wider compat-socketcall", "stricter socket-highbits", "different socket-highbits"}},
		{"podman", testPlan(), readFile(t, podmanProfile), x64, FormatOCI, SocketcallDeny,
			[]string{"stricter compat-socketcall", "stricter socket-highbits"}},
		{"none", testPlan(), noneBase(t, x64), x64, FormatOCI, SocketcallDeny, []string{"stricter compat-socketcall"}},
		{"none, keep", testPlan(), noneBase(t, x64), x64, FormatOCI, SocketcallKeep, []string{"stricter compat-socketcall"}},
		{"none, keep where it is native", testPlan(), noneBase(t, s390x), s390x, FormatOCI, SocketcallKeep, []string{"wider compat-socketcall"}},
		{"none on arm64", testPlan(), noneBase(t, arm64), arm64, FormatOCI, SocketcallDeny, nil},
		{"a rule that nobody holds", testPlan("fips"), noneBase(t, arm64), arm64, FormatOCI, SocketcallDeny, []string{"stricter fips"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := SeccompOptions{Base: test.base, Format: test.format, Socketcall: test.keep, Host: hostOf(test.arch)}
			if test.keep == SocketcallKeep && strings.HasPrefix(strings.Join(test.want, ""), "wider") {
				o.Accept = []string{string(afalg.RouteCompatSocketcall)}
			}
			_, gaps, err := Seccomp(test.plan, o)
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

func TestAcceptOfNothing(t *testing.T) {
	o := SeccompOptions{Common: Common{Accept: []string{"fips"}}, Base: dockerBase(t), Format: FormatOCI, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}
	if _, _, err := Seccomp(testPlan("fips"), o); err == nil || !strings.Contains(err.Error(), "no wider gap of that name") {
		t.Errorf("got %v", err)
	}
}

func TestDockerFormatKeepsConditions(t *testing.T) {
	o := SeccompOptions{Common: Common{Tool: "afalg-policy test"}, Base: dockerBase(t), Format: FormatDocker, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}
	files, _, err := Seccomp(testPlan(), o)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Seccomp(testPlan(), o)
	if err != nil || string(files[0].Data) != string(again[0].Data) {
		t.Errorf("two runs differ (%v)", err)
	}
	before, after := parse(t, o.Base), parse(t, files[0].Data)
	_, rest := split(before.Syscalls)
	if got := after.Syscalls[len(after.Syscalls)-len(rest):]; toJSON(t, got) != toJSON(t, rest) {
		t.Error("rules that hardening is not about have changed")
	}
	if toJSON(t, before.ArchMap) != toJSON(t, after.ArchMap) {
		t.Error("profile.ArchMap has changed")
	}
	if c := after.Syscalls[0].Comment; !strings.HasPrefix(c, "generated by afalg-policy test from policy test (sha256:0); proved with libseccomp ") {
		t.Errorf("the record is %q", c)
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
		{"default notify", `{"defaultAction":"SCMP_ACT_NOTIFY","syscalls":[]}`, "the default action is SCMP_ACT_NOTIFY"},
		{"action", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"ALLOW"}]}`, `unknown action "ALLOW"`},
		{"default action", `{"defaultAction":"deny","syscalls":[]}`, `unknown default action "deny"`},
		{"no default", `{"syscalls":[]}`, "no defaultAction"},
		{"operator", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"=="}]}]}`, `unknown operator "=="`},
		{"index", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}`, "argument index 6"},
		{"duplicate key", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\n \"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[]}", `2:2: key "defaultAction" stands twice`},
		{"key in two cases", `{"defaultAction":"SCMP_ACT_ALLOW","DefaultAction":"SCMP_ACT_ERRNO","syscalls":[]}`, `stands twice`},
		{"unknown key", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[],"extends":"x"}`, `unknown field "extends"`},
		{"name and names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}`, "both name and names"},
		{"no name", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}`, "without a system call name"},
		{"errno", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"EWHAT"}]}`, `unknown errno "EWHAT"`},
		{"two errnos", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"EPERM","errnoRet":2}]}`, "EPERM is 1, and the number beside it is 2"},
		{"kernel", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}`, `kernel version "new"`},
		{"both arch lists", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[]}],"syscalls":[]}`, "both architectures and archMap"},
		{"architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_PDP11"],"syscalls":[]}`, `unknown architecture "SCMP_ARCH_PDP11"`},
		{"mixed permissions", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_LOG"}]}`, "would let it swallow what is added"},
		{"binary junk", "\x7fELF\x02\x01", "1:1: invalid character"},
		{"truncated", `{"defaultAction":`, "unexpected end of JSON input"},
		{"not an object", `[]`, "cannot unmarshal array"},
		{"trailing", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]} {}`, "after top-level value"},
		{"huge", strings.Repeat(" ", profile.MaxJSON+1), "the limit is"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := SeccompOptions{Base: []byte(test.src), Format: FormatOCI, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}
			files, _, err := Seccomp(testPlan(), o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if files != nil {
				t.Error("something was generated")
			}
		})
	}
}
