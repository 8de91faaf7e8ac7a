package gen

import (
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
	{"quoted", AppArmorOptions{Profile: "web containers 2"}},
	{"grant", AppArmorOptions{Common: Common{Grants: []string{"hasher"}, Accept: []string{"hasher"}}}},
	{"no-includes", AppArmorOptions{NoIncludes: true}},
	{"abi-kernel", AppArmorOptions{ABI: ABIKernel}},
	{"abi-none", AppArmorOptions{ABI: ABINone, Common: Common{Accept: []string{"abi"}}}},
	{"abi-other", AppArmorOptions{ABI: "kernel-5.4-vanilla", Common: Common{Accept: []string{"abi"}}}},
	{"abstraction", AppArmorOptions{Abstraction: true}},
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
	grammar := ": up to 128 letters, digits, spaces, _ . and -, the first no space, . or -, the last no space"
	abi := ": the name of a file in /etc/apparmor.d/abi, kernel, or none"
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
		{"space first", AppArmorOptions{Profile: " a"}, `profile name " a"` + grammar},
		{"space last", AppArmorOptions{Profile: "a "}, `profile name "a "` + grammar},
		{"quote", AppArmorOptions{Profile: `a"b`}, `profile name "a\"b"` + grammar},
		{"backslash", AppArmorOptions{Profile: `a\b`}, `profile name "a\\b"` + grammar},
		{"variable", AppArmorOptions{Profile: "a@{PROC}"}, `profile name "a@{PROC}"` + grammar},
		{"both", AppArmorOptions{Profile: "a", Abstraction: true}, `a profile's name and an abstraction: only one of them`},
		{"abi, abstraction", AppArmorOptions{ABI: "3.0", Abstraction: true}, `an abi and an abstraction: only one of them; the profile that includes the abstraction declares its abi`},
		{"no includes, abstraction", AppArmorOptions{NoIncludes: true, Abstraction: true}, `an abstraction has no includes to leave out`},
		{"abi path", AppArmorOptions{ABI: "/etc/apparmor.d/abi/3.0"}, `abi "/etc/apparmor.d/abi/3.0"` + abi},
		{"abi above", AppArmorOptions{ABI: ".."}, `abi ".."` + abi},
		{"abi rule", AppArmorOptions{ABI: "3.0>,\ninclude <evil"}, `abi "3.0>,\ninclude <evil"` + abi},
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
	eacces := &plan.Plan{SocketErrno: plan.Errno{Name: "EACCES", Number: 13}}
	inet6 := &plan.Plan{SocketErrno: eacces.SocketErrno, Families: []policy.Family{{Name: "AF_INET6", Number: 10}}}
	pages := wirelessPlan()
	pages.ZeroCopy = policy.Yes
	decnet := &plan.Plan{SocketErrno: plan.Errno{Name: "EACCES", Number: 13}, Families: []policy.Family{{Name: "AF_DECnet", Number: 12}}}
	tests := []struct {
		name string
		plan *plan.Plan
		opts AppArmorOptions
		want []string
	}{
		{"zero plan", &plan.Plan{}, AppArmorOptions{Abstraction: true}, []string{"different socket-types", "different socket-errno"}},
		{"zero plan, container", &plan.Plan{}, AppArmorOptions{}, []string{"stricter docker-families", "different socket-types", "different socket-errno"}},
		{"unnamed family", decnet, AppArmorOptions{}, []string{"stricter docker-families", "different socket-types", "wider AF_DECnet"}},
		{"accepted", decnet, AppArmorOptions{Common: Common{Accept: []string{"AF_DECnet"}}}, []string{"stricter docker-families", "different socket-types", "wider AF_DECnet"}},
		{"grant", wirelessPlan(), AppArmorOptions{Common: Common{Grants: []string{"iwd"}}},
			[]string{"wider iwd", "stricter hasher", "stricter docker-families", "different socket-types", "different socket-errno"}},
		{"zero-copy, nobody", pages, AppArmorOptions{Abstraction: true}, []string{"stricter hasher", "stricter iwd", "different socket-types", "different socket-errno"}},
		{"zero-copy, grant", pages, AppArmorOptions{Abstraction: true, Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd", "zero-copy"}}},
			[]string{"wider iwd", "stricter hasher", "wider zero-copy", "different socket-types", "different socket-errno"}},
		{"family with a type that has no name", inet6, AppArmorOptions{Abstraction: true}, []string{"different socket-types", "wider AF_INET6"}},
		{"known abi", eacces, AppArmorOptions{ABI: "4.0"}, []string{"stricter docker-families", "different socket-types"}},
		{"abi of the kernel", eacces, AppArmorOptions{ABI: "kernel"}, []string{"stricter docker-families", "different socket-types"}},
		{"no abi", eacces, AppArmorOptions{ABI: "none"}, []string{"stricter docker-families", "wider abi", "different socket-types"}},
		{"unknown abi", eacces, AppArmorOptions{ABI: "5.0"}, []string{"stricter docker-families", "wider abi", "different socket-types"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, gaps, err := AppArmor(tt.plan, tt.opts)
			var got []string
			open := false
			for _, g := range gaps {
				got = append(got, string(g.Kind)+" "+g.Name)
				open = open || g.Kind == plan.Wider && len(tt.opts.Accept) == 0
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
		if out, err := appArmorParser(t, loadable(string(files[0].Data), AppArmorOptions{Abstraction: abstraction}), "--names"); err != nil {
			t.Errorf("%v: %s", err, out)
		} else if strings.Contains(out, "evil") {
			t.Errorf("profiles: %s", out)
		}
	}
}
