package table

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// everything is a host that has each path and each user of a plan.
func everything(p *plan.Plan) Host {
	h := Host{Users: map[string]uint32{}, Files: map[string]File{}}
	for _, r := range p.Rules {
		for _, b := range r.Binaries {
			if _, ok := h.Files[b.Path]; !ok {
				h.Files[b.Path] = File{Binary: guard.Binary{Inode: uint64(1 + len(h.Files)), Device: 8 << 20, Generation: 7}, ChangedSec: 1, SHA256: b.SHA256}
			}
		}
		for _, u := range r.Users {
			h.Users[u] = uint32(1000 + len(h.Users))
		}
	}
	return h
}

// TestGolden shows the tables of all shipped policies.
func TestGolden(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			p, _, err := plan.Load(policy.BuiltinPrefix+name, plan.ReadNamed)
			if err != nil {
				t.Fatal(err)
			}
			tab, gaps, err := Compile(p, everything(p), Options{Generation: 1})
			if err != nil || len(gaps) > 0 {
				t.Fatal(err, gaps)
			}
			golden := filepath.Join("testdata", name+".txt")
			got := dump(tab)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// dump writes a line for each entry.
func dump(tab *Table) string {
	var lines []string
	for k, v := range tab.Entries {
		lines = append(lines, entry(k, v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func entry(k guard.Key, v Value) string {
	switch k.Kind {
	case guard.KindMeta:
		m := at[guard.Meta](&v)
		return fmt.Sprintf("0 meta: generation %d, flags %d, answers %d %d, %d sets of capabilities; reach %s; without binary %s, user %s, unit %s, capability %s; strict %s",
			m.Generation, m.Flags, m.SocketAnswer, m.BindAnswer, m.CapabilitySets, bits(m.Reach), bits(m.NoBinary), bits(m.NoUser), bits(m.NoUnit), bits(m.NoCapability), bits(m.Strict))
	case guard.KindAlgorithm:
		return fmt.Sprintf("algorithm %s:%s: %s", guard.Text(k.Algorithm.Type[:]), guard.Text(k.Algorithm.Name[:]), bits(*at[guard.Rules](&v)))
	case guard.KindBinary:
		b := at[guard.BinaryRules](&v)
		return fmt.Sprintf("binary %d: any %s, content %s, changed %d, exact %d", (*guard.Binary)(unsafe.Pointer(&k.Algorithm)).Inode, bits(b.Any), bits(b.Content), b.ChangedSec, b.Exact)
	case guard.KindUser:
		return fmt.Sprintf("user %d: %s", *(*uint32)(unsafe.Pointer(&k.Algorithm)), bits(*at[guard.Rules](&v)))
	case guard.KindUnit:
		u := (*[120]int8)(unsafe.Pointer(&k.Algorithm))
		return fmt.Sprintf("unit %s: %s", guard.Text(u[:]), bits(*at[guard.Rules](&v)))
	case guard.KindTemplate:
		u := (*guard.Template)(unsafe.Pointer(&k.Algorithm))
		return fmt.Sprintf("template %s %s: %s", guard.Text(u.Prefix[:]), guard.Text(u.Type[:]), bits(*at[guard.Rules](&v)))
	case guard.KindCapabilities:
		c := at[guard.CapabilityRules](&v)
		return fmt.Sprintf("capabilities %d: one of %#x: %s", k.Index, c.Set, bits(c.Rules))
	}
	return fmt.Sprintf("unknown kind %d", k.Kind)
}

func bits(r guard.Rules) string {
	var set []string
	for i := range guard.MaxRules {
		if r.Word[i/64]>>(i%64)&1 != 0 {
			set = append(set, fmt.Sprint(i))
		}
	}
	return "{" + strings.Join(set, " ") + "}"
}

func hash(names ...string) (all policy.Algorithms) {
	for _, name := range names {
		all = append(all, policy.Algorithm{Algorithm: afalg.Algorithm{Type: "hash", Name: name}})
	}
	return all
}

func TestGaps(t *testing.T) {
	h := Host{Users: map[string]uint32{"alice": 1000}, Files: map[string]File{"/a": {SHA256: "aa"}, "/unreadable": {}}}
	longest := strings.Repeat("u", guard.MaxUnit-len(".service")) + ".service"
	for _, tt := range []struct {
		name string
		rule policy.Rule
		want string // part of the gap's text; empty for none
	}{
		{"anyone", policy.Rule{Anyone: true, Algorithms: hash("a")}, ""},
		{"binary", policy.Rule{Binaries: []policy.Binary{{Path: "/a"}}, Algorithms: hash("a")}, ""},
		{"digest", policy.Rule{Binaries: []policy.Binary{{Path: "/a", SHA256: "aa"}}, Algorithms: hash("a")}, ""},
		{"another digest", policy.Rule{Binaries: []policy.Binary{{Path: "/a", SHA256: "bb"}}, Algorithms: hash("a")}, "/a has the sha256 aa"},
		{"digest not known", policy.Rule{Binaries: []policy.Binary{{Path: "/unreadable", SHA256: "aa"}}, Algorithms: hash("a")}, "sha256 is not known"},
		{"no such binary", policy.Rule{Binaries: []policy.Binary{{Path: "/b"}}, Algorithms: hash("a")}, "/b is not on this host"},
		{"user", policy.Rule{Users: []string{"alice", "root", "7"}, Algorithms: hash("a")}, ""},
		{"no such user", policy.Rule{Users: []string{"bob"}, Algorithms: hash("a")}, "no user bob"},
		{"longest unit", policy.Rule{Units: []string{longest}, Algorithms: hash("a")}, ""},
		{"longer unit", policy.Rule{Units: []string{"u" + longest}, Algorithms: hash("a")}, "too long"},
		{"longer template", policy.Rule{Units: []string{strings.Repeat("u", 111) + "@.service"}, Algorithms: hash("a")}, "too long"},
		{"longest name", policy.Rule{Anyone: true, Algorithms: hash(strings.Repeat("n", guard.MaxName))}, ""},
		{"longer name", policy.Rule{Anyone: true, Algorithms: hash(strings.Repeat("n", guard.MaxName+1))}, "cannot carry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Name = "r"
			_, gaps, err := Compile(&plan.Plan{Rules: []policy.Rule{tt.rule}}, h, Options{})
			switch {
			case err != nil:
				t.Fatal(err)
			case tt.want == "" && len(gaps) > 0:
				t.Error(gaps)
			case tt.want != "" && (len(gaps) != 1 || gaps[0].Kind != plan.Stricter || gaps[0].Name != "r" || !strings.Contains(gaps[0].Text, tt.want)):
				t.Errorf("%v, want %q", gaps, tt.want)
			}
		})
	}
}

// TestLimits shows that what does not fit is an error, and what just fits is in
// the table.
func TestLimits(t *testing.T) {
	p := &plan.Plan{}
	for i := range guard.MaxRules - 1 {
		p.Rules = append(p.Rules, policy.Rule{Name: fmt.Sprint("r", i), Anyone: true, Algorithms: hash("a")})
	}
	probe := Options{Probe: &File{Binary: guard.Binary{Inode: 9, Generation: 1}}}
	if _, _, err := Compile(p, Host{}, probe); err != nil {
		t.Errorf("%d rules: %v", len(p.Rules), err)
	}
	p.Rules = append(p.Rules, policy.Rule{Name: "last", Anyone: true, Algorithms: hash("a")})
	if _, _, err := Compile(p, Host{}, Options{}); err == nil {
		t.Errorf("%d rules: no error, and the probe would not fit", len(p.Rules))
	}
	p.Rules = nil
	for i := range guard.MaxCapabilitySets + 1 {
		if _, _, err := Compile(p, Host{}, Options{}); err != nil {
			t.Errorf("%d sets of capabilities: %v", i, err)
		}
		p.Rules = append(p.Rules, policy.Rule{Name: fmt.Sprint("r", i), Capabilities: afalg.Capabilities()[i : i+1], Algorithms: hash("a")})
	}
	if _, _, err := Compile(p, Host{}, Options{}); err == nil || !strings.Contains(err.Error(), "17 different sets") {
		t.Errorf("one set of capabilities too many: %v", err)
	}
}

// TestProbe shows that the rule for the probe is about its executable alone.
func TestProbe(t *testing.T) {
	file := File{Binary: guard.Binary{Inode: 9, Generation: 1}}
	tab, _, err := Compile(&plan.Plan{}, Host{}, Options{Probe: &file})
	if err != nil {
		t.Fatal(err)
	}
	const want = `0 meta: generation 0, flags 2, answers 0 0, 0 sets of capabilities; reach {0}; without binary {}, user {0}, unit {0}, capability {0}; strict {}
algorithm hash:afalg-policy-probe: {0}
binary 9: any {0}, content {}, changed 0, exact 0
`
	if d := cmp.Diff(want, dump(tab)); d != "" {
		t.Error(d)
	}
}
