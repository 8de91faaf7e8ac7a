package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

const profiles = "../../../testdata/profiles"

func document(tb testing.TB, src []byte) *Document {
	tb.Helper()
	d, err := readOne(src)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// readOne reads a text with one document.
func readOne(src []byte) (*Document, error) {
	all, err := ReadDocuments(src)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// builds compiles a document for x86-64, as every runtime does.
func builds(tb testing.TB, d *Document) []Build {
	tb.Helper()
	if d.Profile == nil {
		return nil
	}
	h := profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()}
	var all []Build
	for _, r := range seccomp.Runtimes() {
		p, err := d.Compile(h, r, 0)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, Build{h, r, p})
	}
	return all
}

func lint(tb testing.TB, src []byte) string {
	tb.Helper()
	d := document(tb, src)
	var memo Memo
	findings, err := d.Lint(builds(tb, d), &memo)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, f := range findings {
		if f.Message == "" || f.Fix == "" {
			tb.Errorf("%s has no message or no fix", f.Rule)
		}
		fmt.Fprintf(&b, "%d:%d %s %s\n", f.Line, f.Column, f.Level, f.Rule)
	}
	return b.String()
}

// TestFindings compares the findings of every profile in testdata/profiles with
// a list of its faults and their places.
func TestFindings(t *testing.T) {
	want := map[string]string{
		"closed.json":            "",
		"companion-denies.json":  "5:15 note socketcall-companion\n",
		"companion.json":         "6:15 warning socketcall-companion\n",
		"compares-64-bits.json":  "14:41 warning compares-64-bits\n",
		"config-unfiltered.json": "5:12 error unfiltered\n",
		"config-with-conditions.json": "8:24 note missing-abi\n14:11 note key-of-another-format\n" +
			"15:11 error key-of-another-format\n",
		"denies-64-bits.json":      "3:20 note missing-abi\n9:48 warning compares-64-bits\n",
		"denies-inside-allow.json": "4:20 note missing-abi\n8:17 error deny-inside-allow\n",
		"idle-rules.json":          "3:20 note missing-abi\n10:16 note idle-rule\n15:16 note idle-rule\n",
		"equals-default.json":      "3:20 note missing-abi\n11:17 warning equals-default\n17:17 note equals-default\n",
		"foreign-arch.json":        "4:80 warning arch-ignored\n5:22 warning arch-ignored\n6:22 warning arch-ignored\n",
		"foreign-list.json":        "3:58 warning arch-ignored\n",
		"leaves-io_uring.json":     "3:20 note missing-abi\n6:73 warning io_uring-reachable\n",
		"long-rule.json":           "3:20 note missing-abi\n10:19 warning or-not-and\n15:9 error long-rule\n",
		"miscompiled.json":         "2:20 warning io_uring-reachable\n2:20 error not-an-abi\n",
		"misses-i386.json":         "4:5 note missing-abi\n",
		"or-not-and.json": "3:20 note missing-abi\n9:41 warning compares-64-bits\n10:19 error or-not-and\n" +
			"10:41 warning compares-64-bits\n",
		"replaceable-listener.json": "3:19 note missing-abi\n6:31 error listener-replaceable\n",
		"unknown-calls.json":        "2:20 warning io_uring-reachable\n3:20 note missing-abi\n6:27 warning unknown-call\n12:53 warning unknown-call\n",
		"unknown-keys.json":         "2:3 note unknown-key\n4:20 note missing-abi\n7:55 warning unknown-key\n",
	}
	files, err := filepath.Glob(profiles + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			expected, ok := want[name]
			if !ok {
				t.Fatal("no findings are written down for this profile")
			}
			got := lint(t, src)
			if diff := cmp.Diff(expected, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for line := range strings.Lines(got) {
				seen[strings.Fields(line)[2]] = true
			}
		})
	}
	if len(files) != len(want) {
		t.Errorf("%d profiles, %d expectations", len(files), len(want))
	}
	seen["socketcall-reachable"] = true // found by TestFindingsOfDocker
	for _, c := range Checks() {
		if !seen[c.ID] {
			t.Errorf("no profile shows %s", c.ID)
		}
	}
}

// TestUpperBits shows that a comparison of 64 bits is as good as one of 32 in
// socketcall: i386 has no upper bits. x86-64 lacks the call, and s390x has it.
func TestUpperBits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		native, listed specs.Arch
		want           []int
	}{{specs.ArchX86_64, specs.ArchX86, []int{3}}, {specs.ArchS390X, specs.ArchS390X, []int{2, 3}}}
	for _, test := range tests {
		arch, want := test.native, test.want
		d := document(t, fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":[%q],"syscalls":[
{"names":["socketcall"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]}]}`, test.listed))
		h := profile.Host{Arch: arch}
		p, err := d.Compile(h, seccomp.Crun, 0)
		if err != nil {
			t.Fatal(err)
		}
		findings, err := d.Lint([]Build{{h, seccomp.Crun, p}}, new(Memo))
		if err != nil {
			t.Fatal(err)
		}
		var lines []int
		for _, f := range findings {
			if f.Rule == ruleWide {
				lines = append(lines, f.Line)
			}
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%s: upper bits are reported in lines %v, want %v", arch, lines, want)
		}
	}
}

// TestFindingsOfDocker shows that Docker's default profile has a warning, and
// no error.
func TestFindingsOfDocker(t *testing.T) {
	src, err := jsontext.Encode(profile.Docker())
	if err != nil {
		t.Fatal(err)
	}
	got := lint(t, src)
	if !strings.Contains(got, "warning socketcall-reachable") || strings.Contains(got, "error") {
		t.Errorf("the Docker default profile:\n%s", got)
	}
}

// TestMiscompiledByLevel shows that the finding is of the program: another
// level has none.
func TestMiscompiledByLevel(t *testing.T) {
	src, err := os.ReadFile(profiles + "/miscompiled.json")
	if err != nil {
		t.Fatal(err)
	}
	d := document(t, src)
	h := profile.Host{Arch: specs.ArchX86_64}
	for level, want := range map[int]int{1: 1, 2: 0} {
		p, err := d.Compile(h, seccomp.Runc, level)
		if err != nil {
			t.Fatal(err)
		}
		if got := LintProgram(p.Insns, cbpf.Little); len(got) != want {
			t.Errorf("level %d: %v, want %d findings", level, got, want)
		}
	}
}

// TestRegionsOf compares the regions of comparisons with the comparisons.
func TestRegionsOf(t *testing.T) {
	values := []uint64{0, 1, 2, 38, 39, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 38, 38 << 32, 1<<63 + 38, 1<<64 - 1}
	meets := map[specs.LinuxSeccompOperator]func(x, v, two uint64) bool{
		specs.OpEqualTo:      func(x, v, _ uint64) bool { return x == v },
		specs.OpNotEqual:     func(x, v, _ uint64) bool { return x != v },
		specs.OpLessThan:     func(x, v, _ uint64) bool { return x < v },
		specs.OpLessEqual:    func(x, v, _ uint64) bool { return x <= v },
		specs.OpGreaterThan:  func(x, v, _ uint64) bool { return x > v },
		specs.OpGreaterEqual: func(x, v, _ uint64) bool { return x >= v },
		specs.OpMaskedEqual:  func(x, v, two uint64) bool { return x&v == two&v },
	}
	if len(meets) != len(profile.Operators()) {
		t.Fatalf("%d operators, %d are tested", len(profile.Operators()), len(meets))
	}
	for op, meet := range meets {
		for _, v := range values {
			for _, two := range values {
				a := specs.LinuxSeccompArg{Index: 2, Op: op, Value: v, ValueTwo: two}
				regions := regionsOf([]specs.LinuxSeccompArg{a})
				for _, x := range values {
					d := cbpf.Data{Args: [6]uint64{2: x}}
					got := slices.ContainsFunc(regions, func(r cbpf.Region) bool { return r.Contains(d) })
					if want := meet(x, v, two); got != want {
						t.Fatalf("%#x %s %#x, %#x: %v, want %v", x, op, v, two, got, want)
					}
				}
			}
		}
	}
}

func TestRegionsOfSeveral(t *testing.T) {
	ne := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Op: specs.OpNotEqual, Value: v}
	}
	tests := []struct {
		name string
		args []specs.LinuxSeccompArg
		data cbpf.Data
		want bool
	}{
		{"none", nil, cbpf.Data{}, true},
		{"and: both", []specs.LinuxSeccompArg{ne(0, 1), ne(1, 1)}, cbpf.Data{Args: [6]uint64{2, 2}}, true},
		{"and: one", []specs.LinuxSeccompArg{ne(0, 1), ne(1, 1)}, cbpf.Data{Args: [6]uint64{2, 1}}, false},
		{"or: one", []specs.LinuxSeccompArg{ne(0, 1), ne(0, 2)}, cbpf.Data{Args: [6]uint64{2}}, true},
	}
	for _, test := range tests {
		got := slices.ContainsFunc(regionsOf(test.args), func(r cbpf.Region) bool { return r.Contains(test.data) })
		if got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestArchWords(t *testing.T) {
	arch := afalg.ABIs()[0].Audit
	tests := []struct {
		name string
		p    cbpf.Program
		want []archWord
	}{
		{"compared", join(when(denied, test{offArch, arch}), ret(allow)), []archWord{{1, arch}}},
		{"number", join(when(denied, test{offNr, 41}), ret(allow)), nil},
		{"number after", join(when(denied, test{offArch, arch}, test{offNr, 41}), ret(allow)), []archWord{{1, arch}}},
		{"no word is loaded", join(cbpf.Program{{Code: loadWord, K: offArch}, {Code: jeq, Jf: 1, K: arch}, {Code: jeq, K: 41}}, ret(allow)),
			[]archWord{{1, arch}, {2, 41}}},
		{"on one path only", join(cbpf.Program{{Code: loadWord, K: offArch}, {Code: jeq, Jf: 1, K: arch}, {Code: loadWord, K: offNr}, {Code: jeq, K: 41}}, ret(allow)),
			[]archWord{{1, arch}}},
		{"behind a return", join(cbpf.Program{{Code: loadWord, K: offArch}}, ret(allow), when(denied, test{offArch, 7}), ret(allow)), nil},
	}
	for _, test := range tests {
		if err := test.p.Check(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := archWords(test.p); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestIsABI shows that every ABI is one on its machine, and no call number is.
func TestIsABI(t *testing.T) {
	for _, a := range afalg.ABIs() {
		if e := cbpf.EndianOf(a.BigEndian()); !isABI(a.Audit, e) {
			t.Errorf("%s is no ABI", a.Name)
		}
		for _, c := range a.Calls(afalg.Family) {
			if isABI(c.Nr, cbpf.Little) {
				t.Errorf("%s: the number %d of %s is an ABI", a.Name, c.Nr, c.Name)
			}
		}
	}
}
