package harden

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const allABIs = `"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]`

// TestLastUnconditionalRule: hardening takes the ABI's last unconditional rule,
// and libseccomp never loads the call number then.
func TestLastUnconditionalRule(t *testing.T) {
	t.Parallel()
	const conditional = `{"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":17,"op":"SCMP_CMP_NE"}]},`
	tests := []struct{ name, src string }{
		{"socket and socketcall", `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[` + conditional +
			`{"names":["socket","socketcall"],"action":"SCMP_ACT_ALLOW"}]}`},
		{"socket alone", `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[` + conditional +
			`{"names":["socket"],"action":"SCMP_ACT_ALLOW"}]}`},
		{"another errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":97,` + allABIs + `,"syscalls":[` + conditional +
			`{"names":["socket","socketpair","socketcall"],"action":"SCMP_ACT_ALLOW"}]}`},
		{"killed by default", `{"defaultAction":"SCMP_ACT_KILL_PROCESS",` + allABIs + `,"syscalls":[` + conditional +
			`{"names":["socket","bind","socketcall"],"action":"SCMP_ACT_ALLOW"}]}`},
		{"io_uring", `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[` + conditional +
			`{"names":["socket","io_uring_setup","socketcall"],"action":"SCMP_ACT_ALLOW"}]}`},
		{"nothing but sockets", `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[` +
			`{"names":["socket","socketcall"],"action":"SCMP_ACT_ALLOW"}]}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { hardenEveryWay(t, []byte(test.src), specs.ArchX86_64) })
	}
}

// shapes are conditions of one permission.
var shapes = []string{
	`{"index":1,"value":1,"op":"SCMP_CMP_EQ"}`,
	`{"index":2,"value":0,"op":"SCMP_CMP_EQ"}`,
	`{"index":1,"value":5,"op":"SCMP_CMP_LT"}`,
	`{"index":1,"value":15,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}`,
	`{"index":0,"value":16,"op":"SCMP_CMP_NE"},{"index":2,"value":9,"op":"SCMP_CMP_NE"}`,
	`{"index":1,"value":5,"op":"SCMP_CMP_LE"},{"index":2,"value":1,"op":"SCMP_CMP_EQ"}`,
}

// unlike is the shape that is compiled to a wrong tree beside others, and refused.
const unlike = 4

// shaped are calls that get two permissions.
var shaped = []string{"socket", "socketpair", "socketcall", "prctl", "accept4", "setsockopt", "bind"}

// TestTwoShapes: permissions with conditions on different arguments, of which
// libseccomp makes a tree that never ends. Each shape follows another on some
// call; TestLongTwoShapes has all pairs on all calls.
func TestTwoShapes(t *testing.T) {
	t.Parallel()
	for n, name := range shaped {
		i := 1 + n%(len(shapes)-1)
		if testing.Short() && n > 1 {
			return
		}
		twoShapes(t, name, i, n%i)
	}
}

func TestLongTwoShapes(t *testing.T) {
	t.Parallel()
	for _, name := range shaped {
		for i := range shapes {
			for j := range i {
				twoShapes(t, name, i, j)
			}
		}
	}
}

func twoShapes(t *testing.T, name string, i, j int) {
	t.Helper()
	src := `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}`
	for _, n := range []int{i, j} {
		src += `,{"names":["` + name + `"],"action":"SCMP_ACT_ALLOW","args":[` + shapes[n] + `]}`
	}
	ours := name == "socket" || name == "socketpair"
	hardenOrRefuse(t, []byte(src+`]}`), func(o task) bool {
		return ours && (i == unlike || j == unlike) || !ours && o.Broker != ""
	})
}

// hardenOrRefuse hardens a profile with conditions on a call. A refusal must
// say what to do.
func hardenOrRefuse(t *testing.T, src []byte, refusable func(task) bool) {
	t.Helper()
	for _, o := range ways(src, specs.ArchX86_64) {
		if err := hardenAndJudge(o); err != nil && !(refusable(o) && namesRemedy(err)) {
			t.Errorf("%s, socketcall %s, broker %q: %v", src, o.Socketcall, o.Broker, err)
		}
	}
}

// namesRemedy reports whether an error says what to do.
func namesRemedy(err error) bool {
	for _, remedy := range []string{"give the call one permissive action", "list the values with SCMP_CMP_EQ", "use --socketcall deny", "with fewer conditions"} {
		if strings.Contains(err.Error(), remedy) {
			return true
		}
	}
	return false
}

// TestUnequalIsRefused: what the gaps do not name is not written.
func TestUnequalIsRefused(t *testing.T) {
	t.Parallel()
	base := parse(t, dockerBase(t))
	c := closing{classes: classes{families: []uint32{38}}, errno: 97, socketcall: SocketcallDeny}
	hardened, ch, err := rewrite(base, c)
	if err != nil {
		t.Fatal(err)
	}
	h := hostOf(specs.ArchX86_64)
	proof := func() error { return pair{h, resolve(base, h), resolve(hardened, h)}.prove(c, ch) }
	if err := proof(); err != nil {
		t.Fatal(err)
	}
	replace(hardened, "read")
	unequal, ok := errors.AsType[*unequalError](proof())
	if !ok || unequal.Difference.Equal != cbpf.No || unequal.Difference.Witness.Nr != 0 && unequal.Difference.Witness.Nr != 3 {
		t.Errorf("without read: %v", unequal)
	}
	hardened.Syscalls = append(hardened.Syscalls, rule(specs.ActAllow, "read"), rule(specs.ActAllow, "socket", equals(40)))
	if unequal, ok = errors.AsType[*unequalError](proof()); !ok || unequal.Difference.Witness.Args[0] != 40 {
		t.Errorf("with AF_VSOCK: %v", unequal)
	}
}

// TestTangles: what libseccomp would never finish is refused before it is
// asked.
func TestTangles(t *testing.T) {
	t.Parallel()
	const src = `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},` +
		`{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":5,"op":"SCMP_CMP_LT"},{"index":2,"value":1,"op":"SCMP_CMP_EQ"}]},` +
		`{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":3,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":5,"op":"SCMP_CMP_LT"}]}]}`
	_, _, err := ways([]byte(src), specs.ArchX86_64)[0].run(testPlan())
	if err == nil || !strings.Contains(err.Error(), "syscalls[2] (ioctl): an earlier rule compares argument 1 alike (SCMP_CMP_LT 5)") {
		t.Errorf("got %v", err)
	}
}

// TestSwallowedRules: libseccomp throws away what stands beside an
// unconditional rule, so that it must not come back.
func TestSwallowedRules(t *testing.T) {
	t.Parallel()
	const dead = `{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}`
	for _, first := range []string{dead + `,`, ``} {
		for _, action := range []string{"ALLOW", "TRAP", "LOG"} {
			src := `{"defaultAction":"SCMP_ACT_ERRNO",` + allABIs + `,"syscalls":[{"names":["read","connect"],"action":"SCMP_ACT_ALLOW"},` +
				first + `{"names":["socket","socketpair"],"action":"SCMP_ACT_` + action + `"},` + dead + `]}`
			o := ways([]byte(src), specs.ArchX86_64)[0]
			if err := hardenAndJudge(o); err != nil {
				t.Errorf("%s: %v", src, err)
			}
		}
	}
}

// TestDeparturesAreNamed: each place where a result may differ belongs to a gap
// of the output, unless the policy itself speaks of it.
func TestDeparturesAreNamed(t *testing.T) {
	t.Parallel()
	sources := map[string][]byte{"docker": dockerBase(t), "podman": readFile(t, podmanProfile), "none": noneBase(t, specs.ArchX86_64)}
	for _, name := range []string{"vsock", "socketpair"} {
		sources[name] = readFile(t, "testdata/denylists/"+name+".json")
	}
	for name, src := range sources {
		for _, o := range ways(src, specs.ArchX86_64) {
			for _, p := range []*plan.Plan{testPlan("fips"), manyClasses()} {
				departuresAreNamed(t, name, src, p, o.Options)
			}
		}
	}
}

func departuresAreNamed(t *testing.T, name string, src []byte, p *plan.Plan, o Options) {
	t.Helper()
	base := parse(t, src)
	c, err := closingOf(p, base, o)
	if err != nil {
		return // socketcall cannot be kept with a broker
	}
	for _, c.apart = range []bool{false, true} {
		_, ch, err := rewrite(base, c)
		if err != nil {
			t.Fatal(err)
		}
		gaps, err := gapsOf(p, base, c, ch, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ch.departures {
			named := slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Name == d.gap })
			if d.gap != "" && !named {
				t.Errorf("%s, socketcall %s, broker %q: %s departs by the gap %s, of which nothing tells", name, o.Socketcall, o.Broker, d.call, d.gap)
			}
		}
	}
}
