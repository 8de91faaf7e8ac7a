package sbom

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/licenseclassifier/v2/assets"
	spdxjson "github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/afalg-policy/afalg-policy/internal/licences"
)

var linked = sync.OnceValues(func() ([]Library, error) { return Libraries("gcc", "") })

// subject is the program that make build left.
func subject(t *testing.T) Subject {
	t.Helper()
	libraries, err := linked()
	if err != nil {
		t.Fatal(err)
	}
	s := Subject{Program: "../../bin/afalg-policy", Arch: runtime.GOARCH, Version: "1.2.3", Date: time.Unix(1764000000, 0), Libraries: libraries}
	if _, err := os.Stat(s.Program); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return s
}

func read(t *testing.T, text []byte) *spdx.Document {
	t.Helper()
	d, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The document has each module that go version -m shows, with its checksum, and
// what the program itself says of its libseccomp and its Go.
func TestDocument(t *testing.T) {
	s := subject(t)
	text, err := Text(s)
	if err != nil {
		t.Fatal(err)
	}
	d := read(t, text)
	got := map[string]string{}
	for _, p := range d.Packages {
		if p.PackageLicenseConcluded == "" || p.PackageLicenseConcluded == "NOASSERTION" || p.FilesAnalyzed {
			t.Errorf("%s has the licence %q, files analyzed %v", p.PackageName, p.PackageLicenseConcluded, p.FilesAnalyzed)
		}
		if strings.Contains(p.PackageComment, "go.sum") {
			digest, err := hex.DecodeString(p.PackageChecksums[0].Value)
			if err != nil {
				t.Fatal(err)
			}
			got[p.PackageName+" "+p.PackageVersion] = "h1:" + base64.StdEncoding.EncodeToString(digest)
		}
	}
	out, err := exec.Command("go", "version", "-m", s.Program).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)\t(\S+)$`).FindAllStringSubmatch(string(out), -1) {
		want[m[1]+" "+m[2]] = m[3]
	}
	if len(want) < 20 || !maps.Equal(got, want) {
		t.Errorf("the document has %v\ngo version -m %v", got, want)
	}

	var about struct {
		Build struct{ Libseccomp, Go string }
	}
	if out, err = exec.Command(s.Program, "version", "--json").Output(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &about); err != nil {
		t.Fatal(err)
	}
	if p := named(t, d, "libseccomp"); !strings.HasPrefix(p.PackageVersion, about.Build.Libseccomp+"-") {
		t.Errorf("libseccomp is %s, and the program has %s", p.PackageVersion, about.Build.Libseccomp)
	}
	if p := named(t, d, "Go"); "go"+p.PackageVersion != about.Build.Go {
		t.Errorf("Go is %s, and the program has %s", p.PackageVersion, about.Build.Go)
	}
	sum, err := exec.Command("sha256sum", s.Program).Output()
	if err != nil {
		t.Fatal(err)
	}
	if p := named(t, d, "afalg-policy"); !strings.HasPrefix(string(sum), p.PackageChecksums[0].Value+" ") {
		t.Errorf("the program has the checksum %s, in the document %s", sum, p.PackageChecksums[0].Value)
	}
	for _, p := range d.Packages {
		if n := strings.Count(string(text), fmt.Sprintf("%q: %q", "relatedSpdxElement", "SPDXRef-"+string(p.PackageSPDXIdentifier))); n != 1 {
			t.Errorf("%s stands in %d relationships", p.PackageName, n)
		}
	}
	if len(d.Packages) != len(licences.Components()) {
		t.Errorf("%d packages, and %d components", len(d.Packages), len(licences.Components()))
	}
}

func named(t *testing.T, d *spdx.Document, name string) *spdx.Package {
	t.Helper()
	i := slices.IndexFunc(d.Packages, func(p *spdx.Package) bool { return p.PackageName == name })
	if i < 0 {
		t.Fatalf("the document has no %s", name)
	}
	return d.Packages[i]
}

// The same program has the same document, and any other one another name.
func TestReproducible(t *testing.T) {
	s := subject(t)
	make := func(s Subject) (text []byte, namespace string) {
		t.Helper()
		text, err := Text(s)
		if err != nil {
			t.Fatal(err)
		}
		return text, read(t, text).DocumentNamespace
	}
	text, namespace := make(s)
	moved := s
	moved.Program = filepath.Join(t.TempDir(), "x")
	program, err := os.ReadFile(s.Program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(moved.Program, program, 0o600); err != nil {
		t.Fatal(err)
	}
	moved.Date = s.Date.In(time.FixedZone("elsewhere", 3600))
	if again, _ := make(moved); !bytes.Equal(text, again) {
		t.Error("elsewhere, the document is another")
	}
	changed := moved
	if err := os.WriteFile(changed.Program, append(program, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, other := make(changed); other == namespace {
		t.Errorf("another program has a document of the same name, %s", other)
	}
	later := s
	later.Date = s.Date.Add(time.Second)
	if _, other := make(later); other == namespace {
		t.Errorf("a document of another date has the same name, %s", other)
	}
}

// What is not known is an error, and never left out.
func TestUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Subject)
		want   string
	}{
		"a library":                  {func(s *Subject) { s.Libraries = s.Libraries[1:] }, "libseccomp is linked, and its version is not known"},
		"the version":                {func(s *Subject) { s.Version = "" }, "is not known"},
		"the date":                   {func(s *Subject) { s.Date = time.Time{} }, "is not known"},
		"the architecture":           {func(s *Subject) { s.Arch = "s390x" }, "it is for " + runtime.GOARCH + ", not for s390x"},
		"the program":                {func(s *Subject) { s.Program = "sbom.go" }, "sbom.go"},
		"a program that is not ours": {func(s *Subject) { s.Program = self(t) }, "internal/licences does not have it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := subject(t)
			tt.change(&s)
			if text, err := Text(s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q\n%s", err, tt.want, text)
			}
		})
	}
	for _, bad := range []string{"", "h1:", "h1:AAAA", "sha256:" + strings.Repeat("A", 43) + "="} {
		if sums, err := checksum(bad); err == nil {
			t.Errorf("%q is %v", bad, sums)
		}
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A library that is unpacked for another architecture comes before the compiler's
// own, and dpkg's answer has to fit.
func TestLibraries(t *testing.T) {
	root := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	zipped := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const changelog = "usr/share/doc/libseccomp-dev/changelog.Debian.gz"
	write("usr/lib/aarch64-linux-gnu/libseccomp.a", nil)
	if _, err := Libraries("gcc", root); err == nil || !strings.Contains(err.Error(), "find the source of libseccomp") {
		t.Errorf("without a changelog: %v", err)
	}
	write(changelog, zipped("no version here\n"))
	if _, err := Libraries("gcc", root); err == nil || !strings.Contains(err.Error(), "names no version") {
		t.Errorf("with another text: %v", err)
	}
	write(changelog, zipped("musl (1.2) unstable; urgency=low\n"))
	if _, err := Libraries("gcc", root); err == nil || !strings.Contains(err.Error(), "source package musl, want libseccomp") {
		t.Errorf("with another package: %v", err)
	}
	write(changelog, zipped("libseccomp (9.9.9-1+x) unstable; urgency=low\n\n"))
	got, err := Libraries("gcc", root)
	if err != nil {
		t.Fatal(err)
	}
	own, err := linked()
	if err != nil {
		t.Fatal(err)
	}
	want := append([]Library{{"libseccomp", "libseccomp", "9.9.9-1+x"}}, own[1:]...)
	if !slices.Equal(got, want) || own[0].Version == want[0].Version {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A classifier of texts finds the licences that the table names, in the texts that
// the table gives.
func TestLicencesAreThoseOfTheirTexts(t *testing.T) {
	classifier, err := assets.DefaultClassifier()
	if err != nil {
		t.Fatal(err)
	}
	ruler := strings.Repeat("-", 80)
	table, rest, _ := strings.Cut(licences.Text(), ruler)
	found := map[string][]string{} // by the number of a text
	for _, m := range regexp.MustCompile(`(?s)(\[\d+\]) [^\n]+\n`+ruler+`\n(.*?)(?:`+ruler+`\n|$)`).FindAllStringSubmatch(rest, -1) {
		for _, match := range classifier.Match([]byte(m[2])).Matches {
			found[m[1]] = append(found[m[1]], match.Name)
		}
	}
	rows := 0
	for _, c := range licences.Components() {
		row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(c.Name) + `  .*$`).FindString(table)
		var its []string
		for _, number := range regexp.MustCompile(`\[\d+\]`).FindAllString(row, -1) {
			its = append(its, found[number]...)
		}
		for id := range strings.SplitSeq(strings.NewReplacer("-only", "", "-or-later", "").Replace(c.Licence), " AND ") {
			id, exception, _ := strings.Cut(id, " WITH ")
			if exception != "" {
				continue // of the licence itself nothing has to be passed on
			}
			if !slices.Contains(its, id) {
				t.Errorf("%s: %s is not among %v: %s", c.Name, id, its, row)
			}
			rows++
		}
	}
	if rows < 30 {
		t.Errorf("only %d licences were compared", rows)
	}
}
