package main

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// source is a file of the module.
type source struct {
	pkg, name string
	file      *ast.File
	tags      constraint.Expr // nil: always built
}

// sources parses the files of the module that Go builds.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || path != root && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{name: path, file: file}
		if s.pkg, err = filepath.Rel(root, filepath.Dir(path)); err != nil {
			return err
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				if constraint.IsGoBuild(c.Text) && c.Pos() < file.Package {
					if s.tags, err = constraint.Parse(c.Text); err != nil {
						return err
					}
				}
			}
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tests names the tests of a file.
func (s source) tests() []string {
	var names []string
	if !strings.HasSuffix(s.name, "_test.go") {
		return nil
	}
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name != "TestMain" && regexp.MustCompile("^(Test|Fuzz|Example)($|[^a-z])").MatchString(f.Name.Name) {
			names = append(names, f.Name.Name)
		}
	}
	return names
}

// has reports whether a suite runs a test.
func (s suite) has(from source, name string) bool {
	built := from.tags == nil || from.tags.Eval(func(tag string) bool {
		return tag == s.tag || tag == "race" && s.race || tag == runtime.GOARCH || tag == runtime.GOOS
	})
	asked := len(s.packages) == 0 && !slices.Contains(s.but, from.pkg) || slices.Contains(s.packages, from.pkg)
	return built && asked && regexp.MustCompile(s.run).MatchString(name) && (s.skip == "" || !regexp.MustCompile(s.skip).MatchString(name))
}

// depths are the make targets between which the tests are divided, and the names
// of the tests of each; the rest is make test's.
var depths = map[string]*regexp.Regexp{"test": nil, "test-all": regexp.MustCompile(long), "test-cluster": regexp.MustCompile(clusters), "test-release": regexp.MustCompile(releases), "test-wide": regexp.MustCompile(wides)}

func depth(name string) string {
	for target, names := range depths {
		if names != nil && names.MatchString(name) {
			return target
		}
	}
	return "test"
}

// TestDepths checks that each test is run once: by the target that its name says.
func TestDepths(t *testing.T) {
	seen := map[string]int{}
	for _, from := range sources(t) {
		for _, name := range from.tests() {
			want := depth(name)
			seen[want]++
			for target := range depths {
				var by []string
				for _, s := range targets[target] {
					if s.has(from, name) {
						by = append(by, s.name)
					}
				}
				if target != want && len(by) > 0 {
					t.Errorf("%s %s is for make %s, and run by %v", from.pkg, name, want, by)
				}
				if target == want && len(by) != 1 {
					t.Errorf("%s %s is run by %q, want one suite", from.pkg, name, by)
				}
			}
		}
	}
	if seen["test"] < 500 || seen["test-all"] == 0 || seen["test-cluster"] == 0 || seen["test-release"] == 0 || seen["test-wide"] == 0 {
		t.Errorf("only these tests were found: %v", seen)
	}
	t.Logf("%v", seen)
}

// Each of repeated is a test.
func TestRepeated(t *testing.T) {
	all := map[string]bool{}
	for _, from := range sources(t) {
		for _, name := range from.tests() {
			all[name] = all[name] || from.pkg == machines
		}
	}
	for name := range repeated {
		if !all[name] {
			t.Errorf("there is no %s in %s", name, machines)
		}
	}
}

// Patterns that leave out packages leave out nothing else.
func TestPackagesExist(t *testing.T) {
	all := map[string]bool{}
	for _, s := range sources(t) {
		all[s.pkg] = true
	}
	for target, suites := range targets {
		for _, s := range suites {
			for _, p := range slices.Concat(s.packages, s.but) {
				if !all[p] {
					t.Errorf("make %s, %s: there is no package %s", target, s.name, p)
				}
			}
		}
	}
}

// apart start goroutines, and do not run under the race detector as a whole.
var apart = map[string]string{
	"bench":                          "has no tests",
	commands:                         "its tests atOnce are",
	"internal/admit":                 "one goroutine, which is waited for, or ends with the process",
	"internal/decider":               "the tests atOnce of the commands are of it",
	"internal/filter/harden":         "proofs of many minutes, which share nothing; its cache is that of internal/filter/seccomp",
	"internal/kept":                  "one goroutine, which is waited for",
	"internal/testing/kerneltest":    "one goroutine, which is waited for",
	"internal/testing/oracle":        "one goroutine, which is waited for",
	"internal/probe":                 "one goroutine, which reads what a child says",
	"internal/testing/box":           "in boxes only",
	"internal/testing/machine":       "in boxes and virtual machines only",
	"internal/testing/machine/guest": "in boxes and virtual machines only",
}

// The race detector runs on every package that starts goroutines, except apart.
func TestConcurrent(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.name, "_test.go") || slices.Contains(concurrent, s.pkg) || apart[s.pkg] != "" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			selected, isSelected := n.(*ast.SelectorExpr)
			if _, isGo := n.(*ast.GoStmt); isGo || isSelected && selected.Sel.Name == "Go" {
				t.Errorf("%s starts a goroutine: %s belongs to concurrent", s.name, s.pkg)
			}
			return true
		})
	}
}
