package licences

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLongRelink is what the LGPL promises to whoever has the program: the command
// of docs/licences.md, in a copy of the sources without a repository, links it with
// a libseccomp that was changed. It is also what shows which libraries are linked.
func TestLongRelink(t *testing.T) {
	const relink = `CGO_LDFLAGS=-L/path/to/libraries make clean build`
	doc, err := os.ReadFile("../../docs/licences.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "\n"+relink+"\n") {
		t.Fatalf("docs/licences.md does not have the line %s", relink)
	}
	tree, libraries := t.TempDir(), t.TempDir()
	linkMap := filepath.Join(libraries, "map")
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "LIBRARIES="+libraries)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	libseccomp := func() string {
		t.Helper()
		var about struct{ Build struct{ Libseccomp string } }
		if text := sh("bin/afalg-policy version --json"); json.Unmarshal([]byte(text), &about) != nil {
			t.Fatal(text)
		}
		return about.Build.Libseccomp
	}
	sh(`tar -C ` + sourceTree(t) + ` --exclude=./.git --exclude=./bin --exclude=./out -c . | tar -x`)
	sh("make build")
	original := libseccomp()

	// One object is changed: the one that names the version.
	sh(`cd "$LIBRARIES"
		cp "$(gcc -print-file-name=libseccomp.a)" "$(gcc -print-file-name=libc.a)" .
		object=$(nm -A libseccomp.a 2>/dev/null | sed -n 's/^[^:]*:\([^:]*\):.* T seccomp_version$/\1/p')
		ar x libseccomp.a "$object"
		objcopy --weaken-symbol=seccomp_version "$object" old.o
		cat >changed.c <<'C'
#include <seccomp.h>
static const struct scmp_version changed = {2, 77, 99};
const struct scmp_version *seccomp_version(void) { return &changed; }
C
		gcc -c changed.c
		ld -r -o "$object" changed.o old.o
		ar r libseccomp.a "$object"`)
	sh(strings.ReplaceAll(relink, "/path/to/libraries", `"$LIBRARIES -Wl,-Map=$LIBRARIES/map"`))
	if got := libseccomp(); got != "2.77.99" || original == got {
		t.Errorf("relinked, it is %s; before, %s", got, original)
	}
	// The changed library is at work: it compiles the profile that is proved.
	if out := sh("bin/afalg-policy generate seccomp builtin:baseline --base docker 2>/dev/null"); !strings.Contains(out, "SCMP_ACT_") {
		t.Error(out)
	}

	text, err := os.ReadFile(linkMap)
	if err != nil {
		t.Fatal(err)
	}
	archives, from := map[string]string{}, map[string]bool{}
	for _, c := range []struct{ component, archive string }{
		{"libseccomp", "libseccomp.a"}, {"glibc", "libc.a"}, {"glibc", "libpthread.a"}, {"libgcc", "libgcc.a"}, {"libgcc", "libgcc_eh.a"},
	} {
		archives[c.archive] = c.component
	}
	for _, m := range regexp.MustCompile(`(/[^ ()\n]*\.a)\([^)]+\)`).FindAllStringSubmatch(string(text), -1) {
		component := archives[filepath.Base(m[1])]
		if component == "" {
			t.Fatalf("%s is linked, and no component: read its licence, and add it", m[1])
		}
		from[component] = true
		if inOwn := filepath.Dir(m[1]) == libraries; component == "libseccomp" && !inOwn || filepath.Base(m[1]) == "libc.a" && !inOwn {
			t.Fatalf("%s is linked, and there is another in %s", m[1], libraries)
		}
	}
	var want []string
	for _, c := range Components() {
		if c.Kind == Library {
			want = append(want, c.Name)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(from))); diff != "" {
		t.Errorf("libraries of C (-listed +linked):\n%s", diff)
	}
}

func sourceTree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
