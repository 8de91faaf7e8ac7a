package licences

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite licences.txt")

const textFile = "licences.txt"

// goFiles has the names of the texts that lie beside what Go links, by component.
func goFiles(t *testing.T) map[string][]string {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := string(bytes.TrimSpace(goroot))
	all := map[string][]string{"Go": {filepath.Join(root, "LICENSE"), filepath.Join(root, "PATENTS")}}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range linkedPackages(t, arch) {
			found, err := terms(p.Dir, p.Module.Dir)
			if err != nil {
				t.Fatal(err)
			}
			all[p.Module.Path] = append(all[p.Module.Path], found...)
		}
	}
	for name, files := range all {
		slices.Sort(files)
		all[name] = slices.Compact(files)
	}
	return all
}

type goPackage struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Dir string
		Main      bool
	}
}

// linkedPackages lists the packages of others that the program is built of, as
// make build builds it.
func linkedPackages(t *testing.T, arch string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-tags=netgo,osusergo", "-json=Dir,Standard,Module", "../../cmd/afalg-policy")
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if !p.Standard && !p.Module.Main {
			all = append(all, p)
		}
	}
}

var (
	isTerms   = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright|notice|patents)s?([.-].*)?$`)
	isLicence = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)`)
)

// terms lists the licences and notices that lie beside a package or above it, up
// to the root of its module: one below the root is about code that was copied.
func terms(dir, root string) ([]string, error) {
	var found []string
	for ; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if isTerms.MatchString(e.Name()) && e.Type().IsRegular() && filepath.Ext(e.Name()) != ".go" {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
		if dir == root {
			return found, nil
		}
		if dir == filepath.Dir(dir) {
			return nil, fmt.Errorf("%s is the root of no package here", root)
		}
	}
}

// render makes the text. It fails if anything that is linked is not among the
// components, a component is not linked, or its licence is not there.
func render(components []Component, inGo map[string][]string) (string, error) {
	var problems []error
	var table, texts strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "component\tlicence\ttexts")
	numbers := map[string]int{} // by the words of a text
	left := maps.Clone(inGo)
	for _, c := range components {
		files := slices.Concat(left[c.Name], c.Files)
		if _, isLinked := left[c.Name]; !isLinked && (c.Kind == Module || c.Kind == Toolchain) {
			problems = append(problems, fmt.Errorf("%s is not linked: take it from Components", c.Name))
		}
		delete(left, c.Name)
		if !slices.ContainsFunc(files, func(f string) bool { return filepath.Dir(f) == "elsewhere" || isLicence.MatchString(filepath.Base(f)) }) {
			problems = append(problems, fmt.Errorf("%s has no licence beside its code: give the text in Files", c.Name))
		}
		var its []string
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			words := strings.Join(strings.Fields(string(text)), " ")
			if numbers[words] == 0 {
				numbers[words] = len(numbers) + 1
				fmt.Fprintf(&texts, "\n%s\n[%d] %s of %s\n%s\n\n%s\n", ruler, numbers[words], filepath.Base(file), c.Name, ruler, strings.Trim(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"))
			}
			its = append(its, fmt.Sprintf("[%d]", numbers[words]))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Name, c.Licence, strings.Join(its, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		problems = append(problems, fmt.Errorf("%s is linked into the program, and Components does not have it: read its licence, and add it", name))
	}
	if err := w.Flush(); err != nil {
		problems = append(problems, err)
	}
	return head + table.String() + texts.String(), errors.Join(problems...)
}

const (
	ruler = "--------------------------------------------------------------------------------"
	head  = `afalg-policy, and what is linked into it, with the licence of each as SPDX names
it. The numbers are those of the texts below; a text that several have is here once.

libseccomp and glibc are linked statically, under the GNU Lesser General Public
License. You may change them and link this program with your own: its source and
docs/licences.md, which a release comes with, have what you need and say how.

`
)

// With a new dependency this test fails until somebody has read its licence and
// added it to Components.
func TestTextIsCurrent(t *testing.T) {
	want, err := render(Components(), goFiles(t))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(textFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, Text()); diff != "" {
		t.Errorf("%s is not what is linked (-linked +file); go generate ./internal/licences writes it:\n%s", textFile, diff)
	}
}

// The control of TestTextIsCurrent: each way to be out of date is an error.
func TestRenderFails(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("Do what you want.\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	licence, notice := write("LICENSE"), write("NOTICE")
	tests := []struct {
		name       string
		components []Component
		linked     map[string][]string
		want       string // "": no error
	}{
		{"listed and linked", []Component{{Kind: Module, Name: "example.com/a", Licence: "MIT"}}, map[string][]string{"example.com/a": {licence}}, ""},
		{"a new dependency", nil, map[string][]string{"example.com/a": {licence}}, "example.com/a is linked into the program, and Components does not have it"},
		{"one that is gone", []Component{{Kind: Module, Name: "example.com/a", Licence: "MIT", Files: []string{licence}}}, nil, "example.com/a is not linked"},
		{"one without any text", []Component{{Kind: Module, Name: "example.com/a", Licence: "MIT"}}, map[string][]string{"example.com/a": nil}, "example.com/a has no licence beside its code"},
		{"one with a notice alone", []Component{{Kind: Module, Name: "example.com/a", Licence: "MIT"}}, map[string][]string{"example.com/a": {notice}}, "example.com/a has no licence beside its code"},
		{"a library without its text", []Component{{Kind: Library, Name: "libx", Licence: "MIT", Files: []string{dir + "/COPYING"}}}, nil, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := render(tt.components, tt.linked)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// Licences that lie deeper in a module, with code that was copied, are found.
func TestTerms(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"LICENSE", "NOTICE.txt", "license.go", "a/LICENCE-MIT", "a/b/COPYING", "other/LICENSE", "a/notices/x"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := terms(filepath.Join(root, "a/b"), root)
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range got {
		got[i] = strings.TrimPrefix(path, root+"/")
	}
	if diff := cmp.Diff([]string{"a/b/COPYING", "a/LICENCE-MIT", "LICENSE", "NOTICE.txt"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := terms(t.TempDir(), root); err == nil {
		t.Error("a package outside of the module has terms")
	}
}

// The licence of the libraries is whole: Debian's copy is the same.
func TestLGPL(t *testing.T) {
	want, err := os.ReadFile("/usr/share/common-licenses/LGPL-2.1")
	if err != nil {
		t.Fatalf("%v: Debian's base-files has it", err)
	}
	if got, err := os.ReadFile("elsewhere/lgpl-2.1.txt"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("elsewhere/lgpl-2.1.txt is not Debian's: %v", err)
	}
	if !strings.Contains(Text(), strings.Trim(string(want), "\n")) {
		t.Error("the text does not have it")
	}
}
