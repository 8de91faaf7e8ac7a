package gen

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// preempted accepts what every output has, what some policies leave open by it, and
// the rules that it grants.
func preempted(grants ...string) Common {
	return Common{Tool: "afalg-policy test", Grants: grants, Accept: append([]string{"preemption"}, grants...), Standing: []string{policy.GapSockets}}
}

func allowing(typ afalg.Type, names ...string) (all policy.Algorithms) {
	for _, name := range names {
		all = append(all, policy.Algorithm{Algorithm: afalg.Algorithm{Type: typ, Name: name}})
	}
	return all
}

func binaries(paths ...string) (all []policy.Binary) {
	for _, p := range paths {
		all = append(all, policy.Binary{Path: p})
	}
	return all
}

// conditionsPlan has each condition, alone and beside others.
func conditionsPlan() *plan.Plan {
	return &plan.Plan{
		Name:        "conditions",
		Digest:      "sha256:0123",
		SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: 97},
		BindErrno:   plan.Errno{Name: "ENOENT", Number: 2},
		Families:    []policy.Family{{Name: "AF_RXRPC", Number: 33}},
		Rules: []policy.Rule{
			{Name: "capable", Capabilities: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}, Algorithms: allowing("aead", "gcm(aes)")},
			{Name: "digest", Binaries: []policy.Binary{{Path: "/usr/bin/plain"}, {Path: "/usr/bin/digest", SHA256: strings.Repeat("0", 64)}}, Algorithms: allowing("hash", "sha384")},
			{Name: "plain", Binaries: binaries("/usr/bin/plain", "/usr/bin/second"), Algorithms: allowing("hash", "crc32c", "hmac("+strings.Repeat("a", 80)+")")},
			{Name: "root", Binaries: binaries("/usr/bin/plain", "/usr/bin/root"), Users: []string{"root"}, Algorithms: allowing("skcipher", afalg.AnyName)},
			{Name: "unit", Binaries: binaries("/usr/bin/plain"), Units: []string{"a.service", "b.service"}, Algorithms: allowing("rng", "stdrng")},
			{Name: "user", Binaries: binaries("/usr/bin/named"), Users: []string{"0", "alice"}, Algorithms: allowing("hash", "md5")},
		},
	}
}

func TestTetragonGolden(t *testing.T) {
	shipped := shippedPlans(t)
	for name, tt := range map[string]struct {
		plan *plan.Plan
		opts TetragonOptions
	}{
		"baseline":   {shipped["baseline"], TetragonOptions{Common: preempted()}},
		"fips":       {shipped["fips"], TetragonOptions{Common: preempted()}},
		"linux-7.3":  {shipped["linux-7.3"], TetragonOptions{Common: preempted()}},
		"iwd-grant":  {shipped["iwd"], TetragonOptions{Common: preempted("iwd")}},
		"conditions": {conditionsPlan(), TetragonOptions{Common: preempted("unit"), Policy: "node-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.plan.Digest = "sha256:0123" // it changes with every word of the shipped policies
			files, _, err := Tetragon(tt.plan, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			compareTree(t, filepath.Join("testdata", "tetragon", name), files)
		})
	}
}

func TestTetragonGaps(t *testing.T) {
	rule := func(r policy.Rule) *plan.Plan {
		r.Name = "r"
		if r.Algorithms == nil {
			r.Algorithms = allowing("hash", "sha1")
		}
		return &plan.Plan{Rules: []policy.Rule{r}}
	}
	digest := []policy.Binary{{Path: "/d", SHA256: strings.Repeat("0", 64)}}
	long := binaries("/" + strings.Repeat("a", 255))
	four := &plan.Plan{}
	for _, user := range []string{"0", "1", "2", "3", "0"} {
		four.Rules = append(four.Rules, policy.Rule{
			Name: "user" + user + string(rune('a'+len(four.Rules))), Users: []string{user}, Algorithms: allowing("hash", "sha1"),
		})
	}
	held := []string{"wider preemption", "stricter namespaces", "stricter address"}
	only := func(gaps ...string) []string { return append([]string{"wider preemption"}, gaps...) }
	beside := func(gaps ...string) []string { return append(only(gaps...), held[1:]...) }
	tests := []struct {
		name   string
		plan   *plan.Plan
		grants []string
		want   []string
	}{
		{"zero plan", &plan.Plan{}, nil, only()},
		{"containers", &plan.Plan{Grants: []policy.Grant{{}}}, nil, only("stricter container-grants")},
		{"binary", rule(policy.Rule{Binaries: binaries("/a")}), nil, held},
		{"anyone", rule(policy.Rule{Anyone: true}), nil, held},
		{"capability", rule(policy.Rule{Capabilities: []string{"CAP_NET_ADMIN"}}), nil, held},
		{"uid", rule(policy.Rule{Users: []string{"root", "7"}}), nil, held},
		{"user by name", rule(policy.Rule{Users: []string{"alice"}}), nil, only("stricter r")},
		{"user by name, granted", rule(policy.Rule{Users: []string{"alice"}}), []string{"r"}, beside("wider r")},
		{"one of two users by name", rule(policy.Rule{Users: []string{"alice", "root"}}), nil, beside("stricter r")},
		{"digest", rule(policy.Rule{Binaries: digest}), nil, only("stricter r")},
		{"digest, granted", rule(policy.Rule{Binaries: digest}), []string{"r"}, beside("wider r")},
		{"one of two with a digest", rule(policy.Rule{Binaries: append(binaries("/a"), digest...)}), nil, beside("stricter r")},
		{"strict-exec", rule(policy.Rule{Binaries: binaries("/a"), StrictExec: true}), nil, only("stricter r")},
		{"strict-exec, granted", rule(policy.Rule{Binaries: binaries("/a"), StrictExec: true}), []string{"r"}, beside("wider r")},
		{"zero-copy", &plan.Plan{ZeroCopy: policy.Yes, Rules: []policy.Rule{{Name: "r", Anyone: true, Algorithms: allowing("hash", "sha1")}}}, nil, append(held[:3:3], "wider zero-copy")},
		{"zero-copy, for nobody", &plan.Plan{ZeroCopy: policy.Yes}, nil, only()},
		{"unit", rule(policy.Rule{Binaries: binaries("/a"), Units: []string{"a.service"}}), nil, only("stricter r")},
		{"unit, granted", rule(policy.Rule{Binaries: binaries("/a"), Units: []string{"a.service"}}), []string{"r"}, beside("wider r")},
		{"long path", rule(policy.Rule{Binaries: long}), nil, only("stricter r")},
		{"long path, granted", rule(policy.Rule{Binaries: long}), []string{"r"}, only("stricter r")},
		{"nobody", rule(policy.Rule{}), nil, only("stricter r")},
		{"a fourth kind of subject", four, nil, beside("stricter user3d")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, gaps, err := Tetragon(tt.plan, TetragonOptions{Common: Common{Grants: tt.grants}})
			var got, wider []string
			for _, g := range gaps {
				got = append(got, string(g.Kind)+" "+g.Name)
				if g.Kind == plan.Wider {
					wider = append(wider, g.Name)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err == nil {
				t.Error("it was written with gaps that nobody accepted")
			}
			if _, _, err := Tetragon(tt.plan, TetragonOptions{Common: Common{Grants: tt.grants, Accept: wider}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTetragonErrors(t *testing.T) {
	grammar := ": up to 63 lower-case letters, digits and -, the first and the last no -"
	for _, tt := range []struct {
		name string
		opts TetragonOptions
		want string
	}{
		{"newline", TetragonOptions{Policy: "a\nb"}, `policy name "a\nb"` + grammar},
		{"path", TetragonOptions{Policy: "../a"}, `policy name "../a"` + grammar},
		{"upper case", TetragonOptions{Policy: "A"}, `policy name "A"` + grammar},
		{"dash", TetragonOptions{Policy: "a-"}, `policy name "a-"` + grammar},
		{"long", TetragonOptions{Policy: strings.Repeat("a", 64)}, `policy name "` + strings.Repeat("a", 64) + `"` + grammar},
		{"grant", TetragonOptions{Common: preempted("no")}, `--grant no: the policy has no rule of that name`},
		{"grant that drops nothing", TetragonOptions{Common: preempted("plain")}, `--grant plain: Tetragon asks for everything in this rule, so it holds without a grant`},
		{"accept", TetragonOptions{Common: Common{Accept: []string{"preemption", "unit"}}}, `--accept unit: this output has no wider gap of that name`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files, _, err := Tetragon(conditionsPlan(), tt.opts)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if files != nil {
				t.Errorf("files beside an error: %v", files)
			}
		})
	}
}

// A denial never has errno 0, with which the call would go on.
func TestTetragonZeroPlanDenies(t *testing.T) {
	files, _, err := Tetragon(&plan.Plan{}, TetragonOptions{Common: preempted()})
	if err != nil {
		t.Fatal(err)
	}
	p := tracingPolicyOf(t, files)
	c := tetragonCall{family: afalg.Family, firstMnt: true, firstUser: true, address: salgAddress(afalg.Algorithm{Type: "hash", Name: "sha1"})}
	if s, b := p.socketAnswer(t, c), p.bindAnswer(t, c); s != -97 || b != -2 {
		t.Errorf("socket %d, bind %d", s, b)
	}
}

// A name from a policy must not leave its comment, nor become a key.
func TestTetragonHoldsAnyName(t *testing.T) {
	p := conditionsPlan()
	p.Name = "x\nspec:\n  kprobes: []\n"
	path := "/usr/bin/a: [b] # \"c\" '\\0\u00e9"
	p.Rules[2].Binaries = binaries(path)
	files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
	if err != nil {
		t.Fatal(err)
	}
	got := tracingPolicyOf(t, files)
	c := tetragonCall{family: afalg.Family, binary: path, firstMnt: true, firstUser: true, address: salgAddress(afalg.Algorithm{Type: "hash", Name: "crc32c"})}
	if errno := got.bindAnswer(t, c); errno != 0 || len(got.Spec.Kprobes) < 3 {
		t.Errorf("%d, %d kprobes", errno, len(got.Spec.Kprobes))
	}
}
