package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

const (
	repository = "../.."
	module     = "github.com/afalg-policy/afalg-policy/"
)

// readFor reads for a container of Docker on amd64.
func readFor(t *testing.T, names, dumps []string) *Filters {
	t.Helper()
	reader := source.Reader{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()}
	in := reader.Read(names, dumps)
	if len(in.Broken) > 0 {
		t.Fatal(in.Broken)
	}
	r, err := Questions{}.Ask(in, &reader.Memo)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func profilePaths(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(repository + "/testdata/profiles/*.json")
	if err != nil || paths == nil {
		t.Fatal("no profiles", err)
	}
	return paths
}

// TestSARIF validates what is written for every profile, and for a program
// without lines, against the schema of the standard, and reads it with a
// library that others use.
func TestSARIF(t *testing.T) {
	schema := sarifSchemaOfStandard(t)
	dump := filepath.Join(t.TempDir(), "all of it.bpf")
	if err := os.WriteFile(dump, []byte("\x06\x00\x00\x00\x00\x00\xff\x7f"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Filters{readFor(t, nil, []string{dump}), readFor(t, profilePaths(t), nil)} {
		text, err := r.SARIF(Build{})
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%d filters: %v", len(r.Filters), err)
		}
		report, err := sarif.FromBytes(text)
		if err != nil {
			t.Fatal(err)
		}
		results := report.Runs[0].Results
		if len(results) == 0 {
			t.Errorf("%d filters: no results", len(r.Filters))
		}
		driver := report.Runs[0].Tool.Driver
		if driver.InformationURI == nil || *driver.InformationURI != homePage {
			t.Errorf("informationUri is %v", driver.InformationURI)
		}
		for _, rule := range driver.Rules {
			page, ok := strings.CutPrefix(*rule.HelpURI, homePage+"/blob/main/")
			file, heading, _ := strings.Cut(page, "#")
			text, err := os.ReadFile(repository + "/" + file)
			if !ok || err != nil || !strings.Contains(strings.ReplaceAll(strings.ToLower(string(text)), " ", "-"), "##-"+heading) {
				t.Errorf("rule %s: the help %s is not there: %v", *rule.ID, *rule.HelpURI, err)
			}
		}
		for _, r := range results {
			if rule := report.Runs[0].Tool.Driver.Rules[r.RuleIndex]; *rule.ID != *r.RuleID {
				t.Errorf("result of %s points at rule %s", *r.RuleID, *rule.ID)
			}
		}
	}
}

// TestSARIFSchemaRefuses: the validation above can fail.
func TestSARIFSchemaRefuses(t *testing.T) {
	schema := sarifSchemaOfStandard(t)
	for _, text := range []string{
		`{"version": "2.1.0"}`,
		`{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"level": "error"}]}]}`,
		`{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"level": "bad", "message": {"text": "x"}}]}]}`,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(value) == nil {
			t.Errorf("valid: %s", text)
		}
	}
}

// sarifSchemaOfStandard takes the schema of OASIS out of the source of the
// module that carries it; the module does not export it.
func sarifSchemaOfStandard(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && len(lit.Value) > len(text) {
			text, err = strconv.Unquote(lit.Value)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if id := value.(map[string]any)["id"]; id != sarifSchema {
		t.Fatalf("the schema is %v, reports name %s", id, sarifSchema)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(sarifSchema, value); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(sarifSchema)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

const (
	allSocketCalls  = "x86-64 socket, x86-64 socket (upper bits), x86-64 socketpair, i386 socket, i386 socketcall, i386 socketpair, i386 socketcall (socketpair), x32 socket, x32 socketpair"
	butSocket       = "x86-64 socketpair, i386 socketcall, i386 socketpair, i386 socketcall (socketpair), x32 socketpair"
	butSocketNarrow = "x86-64 socket (upper bits), " + butSocket
)

// TestRealProfiles writes down which calls the profiles of others leave open
// on x86-64, as docs/verify.md shows them by shape. Two versions of a module
// cannot stand in one go.mod, so they come from the module cache.
func TestRealProfiles(t *testing.T) {
	const moby = "github.com/moby/profiles/seccomp@"
	tests := []struct{ name, path, want string }{
		{"moby v0.1.0", moduleDir(t, moby+"v0.1.0") + "/default.json", allSocketCalls},
		{"moby v0.2.3", moduleDir(t, moby+"v0.2.3") + "/default.json", butSocketNarrow},
		{"moby v0.2.4", moduleDir(t, moby+"v0.2.4") + "/default.json", butSocket},
		{"moby v0.3.0", moduleDir(t, moby+"v0.3.0") + "/default.json", butSocket},
		{"podman of Debian 12", "/usr/share/containers/seccomp.json", allSocketCalls}, // golang-github-containers-common
		{"containerd v2.4.2", containerdProfile(t, "v2.4.2"), butSocket},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, openCalls(t, test.path)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s", cmd, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}

// openCalls lists what is open on x86-64 as both runtimes compile a profile.
func openCalls(t *testing.T, path string) string {
	t.Helper()
	var lists []string
	for _, f := range readFor(t, []string{path}, nil).Filters {
		var open []string
		for _, a := range f.Answers {
			if a.Verdict != "closed" {
				open = append(open, a.ABI+" "+a.title())
			}
		}
		lists = append(lists, strings.Join(open, ", "))
	}
	if len(lists) != 2 || lists[0] != lists[1] {
		t.Errorf("the runtimes differ: %q", lists)
	}
	return lists[0]
}

// containerdProfile runs the code in which containerd keeps its profile. The
// whole package would bring containerd with it, so these files are laid over a
// package of our module that does not exist.
func containerdProfile(t *testing.T, version string) string {
	t.Helper()
	const pkg = "internal/containerdprofile"
	src := moduleDir(t, "github.com/containerd/containerd/v2@"+version)
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	dir, overlay := t.TempDir(), map[string]string{}
	lay := func(name, text string) {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(root, pkg, name)] = file
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.NewReplacer("package seccomp\n", "package main\n",
			"github.com/containerd/containerd/v2/pkg/kernelversion", module+pkg+"/kernelversion").Replace(string(text))
	}
	lay("default.go", read("contrib/seccomp/seccomp_default.go"))
	lay("kernelversion/version.go", read("pkg/kernelversion/kernel_linux.go"))
	lay("main.go", containerdMain)
	files, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, files, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "-overlay", list, "./"+pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	path := filepath.Join(dir, "containerd.json")
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const containerdMain = `package main

import (
	"encoding/json"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func main() {
	caps := &specs.LinuxCapabilities{}
	profile := DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: caps}})
	if err := json.NewEncoder(os.Stdout).Encode(profile); err != nil {
		panic(err)
	}
}
`

// TestFindingsAreDocumented: docs/findings.md has a section for each.
func TestFindingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(repository + "/docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got strings.Builder
	all := slices.SortedFunc(slices.Values(slices.Concat(verify.Checks(), manifestChecks())), func(a, b verify.Check) int { return strings.Compare(a.ID, b.ID) })
	for _, c := range all {
		fmt.Fprintf(&want, "## %s\n\n*%s* · %s\n\n%s\n", c.ID, c.Level, c.Title, c.Why)
	}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		head, _, _ := strings.Cut(section, "\n\n- Seen in: ")
		fmt.Fprintf(&got, "## %s\n", head)
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("-code +document:\n%s", diff)
	}
}
