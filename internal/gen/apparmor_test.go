package gen

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/moby/profiles/apparmor" // whose source TestAppArmorTemplate reads

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

var appArmorCases = []struct {
	name string
	opts AppArmorOptions
}{
	{"container", AppArmorOptions{}},
	{"named", AppArmorOptions{Profile: "web.containers-2"}},
	{"abstraction", AppArmorOptions{Abstraction: true}},
	{"grant", AppArmorOptions{Common: Common{Grants: []string{"hasher"}, Accept: []string{"hasher"}}}},
	{"abstraction-grant", AppArmorOptions{Abstraction: true, Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd"}}}},
}

func appArmorText(t *testing.T, o AppArmorOptions) string {
	t.Helper()
	o.Tool = "afalg-policy test"
	files, _, err := AppArmor(wirelessPlan(), o)
	if err != nil {
		t.Fatal(err)
	}
	return string(files[0].Data)
}

func TestAppArmorGolden(t *testing.T) {
	for _, c := range appArmorCases {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Tool = "afalg-policy test"
			files, _, err := AppArmor(wirelessPlan(), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			compareTree(t, filepath.Join("testdata", "apparmor", c.name), files)
		})
	}
}

// The copy of the template is the one of the module that go.mod pins.
func TestAppArmorTemplate(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/moby/profiles/apparmor").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(dir)), "template.go")
	want := stringConstant(t, path, "baseTemplate")
	if *update {
		if err := os.WriteFile("apparmor_container.tmpl", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, containerTemplate); diff != "" {
		t.Errorf("-module +copy (go generate rewrites):\n%s", diff)
	}
}

func stringConstant(t *testing.T, path, name string) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if obj := file.Scope.Lookup(name); obj != nil {
		if spec, ok := obj.Decl.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
		}
	}
	t.Fatalf("%s: no constant %s", path, name)
	return ""
}

// appArmorFeatures is an ABI with network mediation; without one the parser
// drops every network rule in silence.
const appArmorFeatures = "/etc/apparmor.d/abi/3.0"

// appArmorParser runs the real parser, which neither loads nor caches.
func appArmorParser(t *testing.T, text string, args ...string) (stdout string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--skip-kernel-load", "--skip-cache", "--quiet"}, args...)
	cmd := exec.Command("apparmor_parser", append(args, path)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

func compileAppArmor(t *testing.T, text, features string) string {
	t.Helper()
	out, err := appArmorParser(t, text, "--stdout", "--kernel-features", features, "--policy-features", features)
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, text)
	}
	return out
}

// loadable makes a profile of what the target wrote.
func loadable(text string, abstraction bool) string {
	if !abstraction {
		return text
	}
	return "profile p {\n  network,\n" + text + "}\n"
}

func withoutDeny(text, family string) string {
	return strings.ReplaceAll(text, "deny network "+family+",", "")
}

// Each rule is in the compiled profile, and nothing else is changed by it.
func TestAppArmorCompiled(t *testing.T) {
	for _, c := range appArmorCases {
		t.Run(c.name, func(t *testing.T) {
			text := loadable(appArmorText(t, c.opts), c.opts.Abstraction)
			compiled := compileAppArmor(t, text, appArmorFeatures)
			closed := compileAppArmor(t, withoutDeny(text, "alg"), appArmorFeatures) != compiled
			if granted := len(c.opts.Grants) > 0; closed == granted {
				t.Errorf("AF_ALG closed: %t, granted: %t", closed, granted)
			}
			if compileAppArmor(t, withoutDeny(text, "rxrpc"), appArmorFeatures) == compiled {
				t.Error("AF_RXRPC is not closed")
			}
			base := "profile p {\n  network,\n}\n"
			if !c.opts.Abstraction {
				var err error
				if base, err = containerProfile(fileName(c.opts)); err != nil {
					t.Fatal(err)
				}
			}
			if compileAppArmor(t, withoutDeny(withoutDeny(text, "alg"), "rxrpc"), appArmorFeatures) != compileAppArmor(t, base, appArmorFeatures) {
				t.Error("more than the denied families differs from the base")
			}
		})
	}
}

func fileName(o AppArmorOptions) string {
	if o.Profile == "" {
		return DefaultProfile
	}
	return o.Profile
}

// What the header warns of: under this ABI the rule compiles to nothing.
func TestAppArmorNeedsNetworkMediation(t *testing.T) {
	const without = "/etc/apparmor.d/abi/kernel-5.4-vanilla"
	text := appArmorText(t, AppArmorOptions{})
	if compileAppArmor(t, text, without) != compileAppArmor(t, withoutDeny(text, "alg"), without) {
		t.Error("the rule has an effect: correct the header")
	}
}

// Two tables that must agree: our names and the parser's.
func TestAppArmorFamilies(t *testing.T) {
	for n := uint32(0); afalg.FamilyName(n) != ""; n++ {
		name, ok := appArmorFamily(n)
		if !ok {
			name = strings.ToLower(strings.TrimPrefix(afalg.FamilyName(n), "AF_"))
		}
		out, err := appArmorParser(t, "profile p {\n  deny network "+name+",\n}\n")
		if (err == nil) != ok {
			t.Errorf("%s: known to us: %t, to the parser: %v %s", name, ok, err, out)
		}
	}
	if name, ok := appArmorFamily(4711); ok {
		t.Errorf("family 4711 is %q", name)
	}
}

func TestAppArmorErrors(t *testing.T) {
	grammar := ": up to 128 letters, digits, _ . and -, the first no . or -"
	tests := []struct {
		name string
		opts AppArmorOptions
		want string
	}{
		{"newline", AppArmorOptions{Profile: "a\nb"}, `profile name "a\nb"` + grammar},
		{"brace", AppArmorOptions{Profile: "a{b,c}"}, `profile name "a{b,c}"` + grammar},
		{"path", AppArmorOptions{Profile: "../a"}, `profile name "../a"` + grammar},
		{"flag", AppArmorOptions{Profile: "-a"}, `profile name "-a"` + grammar},
		{"template", AppArmorOptions{Profile: "{{.Name}}"}, `profile name "{{.Name}}"` + grammar},
		{"long", AppArmorOptions{Profile: strings.Repeat("a", 129)}, `profile name "` + strings.Repeat("a", 129) + `"` + grammar},
		{"trailing newline", AppArmorOptions{Profile: "a\n"}, `profile name "a\n"` + grammar},
		{"unconfined", AppArmorOptions{Profile: "unconfined"}, `profile name "unconfined" means no profile to AppArmor; choose another`},
		{"both", AppArmorOptions{Profile: "a", Abstraction: true}, `a profile's name and an abstraction: only one of them`},
		{"grant", AppArmorOptions{Common: Common{Grants: []string{"no"}}}, `--grant no: the policy has no rule of that name`},
		{"accept", AppArmorOptions{Common: Common{Accept: []string{"iwd"}}}, `--accept iwd: this output has no wider gap of that name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, _, err := AppArmor(wirelessPlan(), tt.opts)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if files != nil {
				t.Errorf("files beside an error: %v", files)
			}
		})
	}
}

func TestAppArmorGaps(t *testing.T) {
	decnet := &plan.Plan{SocketErrno: plan.Errno{Name: "EACCES", Number: 13}, Families: []policy.Family{{Name: "AF_DECnet", Number: 12}}}
	tests := []struct {
		name string
		plan *plan.Plan
		opts AppArmorOptions
		want []string
	}{
		{"zero plan", &plan.Plan{}, AppArmorOptions{}, []string{"different socket-errno"}},
		{"unnamed family", decnet, AppArmorOptions{}, []string{"wider AF_DECnet"}},
		{"accepted", decnet, AppArmorOptions{Common: Common{Accept: []string{"AF_DECnet"}}}, []string{"wider AF_DECnet"}},
		{"grant", wirelessPlan(), AppArmorOptions{Common: Common{Grants: []string{"iwd"}}},
			[]string{"wider iwd", "stricter hasher", "different socket-errno"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, gaps, err := AppArmor(tt.plan, tt.opts)
			var got []string
			open := false
			for _, g := range gaps {
				got = append(got, string(g.Kind)+" "+g.Name)
				open = open || g.Kind == Wider && len(tt.opts.Accept) == 0
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (err != nil) != open || (files == nil) != open {
				t.Errorf("a wider gap: %t; error %v, %d files", open, err, len(files))
			}
		})
	}
}

// A name from a policy must not become a rule, nor an include.
func TestAppArmorHeaderHoldsAnyName(t *testing.T) {
	p := wirelessPlan()
	p.Name = "x\ninclude <evil>\nprofile evil {} \r #include <evil> \\\n include <evil> " + strings.Repeat("y ", 80) + "include <evil>"
	for _, abstraction := range []bool{false, true} {
		files, _, err := AppArmor(p, AppArmorOptions{Abstraction: abstraction})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := appArmorParser(t, loadable(string(files[0].Data), abstraction), "--names"); err != nil {
			t.Errorf("%v: %s", err, out)
		} else if strings.Contains(out, "evil") {
			t.Errorf("profiles: %s", out)
		}
	}
}
