package verify

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

func TestKindAndMachines(t *testing.T) {
	const rules = `"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]`
	tests := []struct {
		name, src string
		kind      Kind
		machines  string
	}{
		{"nothing listed", `{` + rules + `}`, KindOCI, "SCMP_ARCH_S390X"},
		{"listed", `{` + rules + `,"architectures":["SCMP_ARCH_X86","SCMP_ARCH_X86_64"]}`, KindOCI, "SCMP_ARCH_X86_64"},
		{"a compat ABI alone", `{` + rules + `,"architectures":["SCMP_ARCH_ARM"]}`, KindOCI, "SCMP_ARCH_AARCH64"},
		{"archMap", `{` + rules + `,"archMap":[{"architecture":"SCMP_ARCH_X86_64"},{"architecture":"SCMP_ARCH_RISCV64"}]}`, KindDocker,
			"SCMP_ARCH_X86_64 SCMP_ARCH_RISCV64"},
		{"condition", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":"SCMP_ACT_LOG","includes":{"caps":["CAP_CHOWN"]}}]}`,
			KindDocker, "SCMP_ARCH_S390X"},
		{"config", `{"ociVersion":"1.0.0","linux":{"seccomp":{` + rules + `}}}`, KindConfig, "SCMP_ARCH_S390X"},
		{"config without a filter", `{"ociVersion":"1.0.0"}`, KindConfig, "SCMP_ARCH_S390X"},
		{"config with null", `{"linux":{"seccomp":null}}`, KindConfig, "SCMP_ARCH_S390X"},
	}
	for _, test := range tests {
		d, err := readOne([]byte(test.src))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var machines []string
		for _, m := range d.Machines(specs.ArchS390X) {
			machines = append(machines, string(m))
		}
		if got := strings.Join(machines, " "); d.Kind != test.kind || got != test.machines {
			t.Errorf("%s: %s for %s, want %s for %s", test.name, d.Kind, got, test.kind, test.machines)
		}
	}
}

// TestUnusable has texts that no runtime loads, or that runtimes read
// differently: they are no filter to ask.
func TestUnusable(t *testing.T) {
	const head = "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\n"
	tests := []struct{ name, src, want string }{
		{"empty", "", "1:1: the text is empty: a profile that filters nothing is {}"},
		{"truncated", head + `"syscalls":[`, "2:12: unexpected end of JSON input"},
		{"no object", "[]", "neither a seccomp profile nor a config.json: the JSON text is no object"},
		{"no default", `{"syscalls":[{"names":["bind"],"action":"SCMP_ACT_ALLOW"}]}`, "1:1: the profile has no defaultAction"},
		{"comment", head + "// no\n\"syscalls\":[]}", "2:1: invalid character '/' looking for beginning of object key string"},
		{"two texts", "{} {}", "1:4: invalid character '{' after top-level value"},
		{"key twice", head + `"syscalls":[], "syscalls":[]}`, `2:16: key "syscalls" stands twice in one object`},
		{"key twice deep", `{"linux":{"x":1,"x":2}}`, `1:17: key "x" stands twice in one object`},
		{"key in another case", head + `"Syscalls":[]}`, `2:1: key "Syscalls": runc reads it as "syscalls", and crun ignores it`},
		{"path in another case", "{\"ociVersion\":\"1\",\n\"linux\":{\"Seccomp\":{}}}", `2:10: key "Seccomp": runc reads it as "seccomp", and crun ignores it`},
		{"kind", head + `"syscalls":{}}`, "2:12: syscalls cannot be a JSON object"},
		{"default", `{"defaultAction":"DENY","syscalls":[]}`, `1:18: unknown action "DENY"`},
		{"action", head + `"syscalls":[{"names":["bind"],"action":"ALLOW"}]}`, `2:40: unknown action "ALLOW"; did you mean "SCMP_ACT_ALLOW"?`},
		{"operator", head + `"syscalls":[{"names":["bind"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"=="}]}]}`, `2:81: unknown operator "=="`},
		{"argument", head + `"syscalls":[{"names":["bind"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`,
			"2:74: argument 6: a call has arguments 0 to 5"},
		{"architecture", head + `"architectures":["SCMP_ARCH_VAX"],"syscalls":[]}`, `2:18: unknown architecture "SCMP_ARCH_VAX"`},
		{"too many rules", head + `"syscalls":[{"names":["bind"` + strings.Repeat(`,"bind"`, maxRules) + `],"action":"SCMP_ACT_ALLOW"}]}`,
			"2:13: more than 8192 rules up to here: a filter has 4096 instructions at most"},
		{"config", "{\"ociVersion\":\"1\",\"linux\":{\n\"seccomp\":{\"defaultAction\":\"NO\"}}}", `2:28: unknown action "NO"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, err := readOne([]byte(test.src))
			if err == nil {
				_, err = d.Compile(profile.Host{Arch: specs.ArchX86_64}, seccomp.Runc, 0)
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

// TestLongRule shows how the runtimes treat more comparisons than arguments.
func TestLongRule(t *testing.T) {
	src, err := os.ReadFile(profiles + "/long-rule.json")
	if err != nil {
		t.Fatal(err)
	}
	d := document(t, src)
	for _, b := range builds(t, d) {
		v, err := Ask(cbpf.Filter{b.Program.Insns}, x86[0].Calls(afalg.Family)[0], Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[seccomp.Runtime]State{seccomp.Runc: Closed, seccomp.Crun: Open}[b.Runtime]
		if v.State != want {
			t.Errorf("%s: %v, want %v", b.Runtime, v.State, want)
		}
	}
}

// TestMemo shows one answer for equal filters, and another for a stack of two.
func TestMemo(t *testing.T) {
	open, closed := cbpf.Filter{ret(allow)}, cbpf.Filter{ret(denied)}
	var memo Memo
	for _, q := range RouteQuestions(x86, afalg.Family) {
		for _, f := range []cbpf.Filter{open, closed, {ret(allow), ret(denied)}, {}, slices.Clone(closed)} {
			want, err := q.Ask(f, Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := memo.Ask(f, q, Options{})
			if err != nil || got.State != want.State || got.Call != want.Call {
				t.Errorf("%s: %v, %v; want %v", q.Call.Name, got.State, err, want.State)
			}
		}
	}
	if want := 4 * len(RouteQuestions(x86, afalg.Family)); len(memo.known) != want {
		t.Errorf("%d answers are kept, want %d", len(memo.known), want)
	}
}

// FuzzDocument shows that every accepted text can be compiled or is refused,
// and a finding has a place in the text.
func FuzzDocument(f *testing.F) {
	files, err := filepath.Glob(profiles + "/*.json")
	if err != nil || files == nil {
		f.Fatal("no profiles", err)
	}
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		d, err := readOne(src)
		if err != nil || d.Profile == nil {
			return
		}
		h := profile.Host{Arch: specs.ArchX86_64}
		p, err := d.Compile(h, seccomp.Runc, 0)
		if err != nil || len(p.Insns) > cbpf.MaxInstructions {
			return
		}
		findings, err := d.Lint([]Build{{h, seccomp.Runc, p}}, &Memo{})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(src), "\n")
		for _, found := range findings {
			if found.Line < 1 || found.Line > len(lines) || found.Column < 1 || found.Column > len(lines[found.Line-1])+1 {
				t.Errorf("%s at %d:%d, outside of the text", found.Rule, found.Line, found.Column)
			}
		}
	})
}
