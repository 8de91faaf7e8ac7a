package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tree is a repository with the files that name the version, and one commit.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	tr := tree{t, t.TempDir()}
	for _, name := range []string{"VERSION", ".archived", ".gitattributes", "scripts/version", "scripts/notes"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		tr.write(name, string(text))
	}
	tr.write("VERSION", "0.1.0\n")
	tr.do("git", "init", "-q", "-b", "main")
	tr.do("git", "add", ".")
	tr.commit("one")
	return tr
}

func (tr tree) write(name, text string) {
	tr.t.Helper()
	path := filepath.Join(tr.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) commit(message string) {
	tr.t.Helper()
	tr.do("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-a", "-m", message)
}

// run runs a program in the tree, which git takes for one of its own.
func (tr tree) run(command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = tr.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(tr.dir))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (tr tree) do(command ...string) string {
	tr.t.Helper()
	out, err := tr.run(command...)
	if err != nil {
		tr.t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return out
}

// unpacked is what git archive makes of the commit, without a repository.
func (tr tree) unpacked() tree {
	tr.t.Helper()
	to := tree{tr.t, tr.t.TempDir()}
	tr.do("sh", "-euc", `git archive HEAD | tar -x -C "$0"`, to.dir)
	return to
}

// A tree has one version, in a repository, in the tarball that git makes of it,
// and in a copy of its files. Only a commit with the tag of VERSION is a release.
func TestVersion(t *testing.T) {
	tr := newTree(t)
	plain := tree{t, t.TempDir()}
	tr.do("cp", "-r", "VERSION", ".archived", "scripts", plain.dir)
	commit := tr.do("git", "rev-parse", "HEAD")[:12]
	check := func(what string, tr tree, want string) {
		t.Helper()
		if got := tr.do("scripts/version"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	check("a commit", tr, "0.1.0-dev+"+commit)
	check("its tarball", tr.unpacked(), "0.1.0-dev+"+commit)
	check("the files alone", plain, "0.1.0-dev")

	tr.do("git", "tag", "v0.1.0")
	tr.do("git", "tag", "something-else")
	release := tr.unpacked()
	check("the tag", tr, "0.1.0")
	check("its tarball", release, "0.1.0")
	check("the tarball of the tag before", tr.unpacked(), "0.1.0")

	// A tarball in the repository of somebody else has its own version.
	other := newTree(t)
	tr.do("cp", "-r", release.dir, filepath.Join(other.dir, "vendored"))
	check("a tarball in another repository", tree{t, filepath.Join(other.dir, "vendored")}, "0.1.0")

	tr.write("scripts/notes", "changed")
	check("the tag, with changes", tr, "0.1.0-dev+"+commit+".modified")
	tr.commit("two")
	check("a commit after the tag", tr, "0.1.0-dev+"+tr.do("git", "rev-parse", "HEAD")[:12])

	for _, bad := range []string{"", "1.0", "v1.0.0", "1.0.0-rc.1", "01.0.0", "1.0.0\n2.0.0", "1.0.0; touch hacked"} {
		tr.write("VERSION", bad)
		if out, err := tr.run("scripts/version"); err == nil || !strings.Contains(out, "want three numbers") {
			t.Errorf("VERSION %q: %v, %s", bad, err, out)
		}
	}
	tr.write("VERSION", "0.2.0\n")
	tr.commit("three")
	tr.do("git", "tag", "v0.3.0")
	for what, tr := range map[string]tree{"a repository": tr, "a tarball": tr.unpacked()} {
		if out, err := tr.run("scripts/version"); err == nil || !strings.Contains(out, "the tag v0.3.0 is on a tree whose VERSION says 0.2.0") {
			t.Errorf("%s with the tag of another version: %v, %s", what, err, out)
		}
	}
}

// A tarball carries the names of branches, and anybody who may make a branch
// chooses one. The control shows that the name would do harm if it were run.
func TestVersionRunsNoNames(t *testing.T) {
	const name = `x';touch${IFS}hacked;'`
	tr := newTree(t)
	tr.do("git", "branch", name)
	tarball := tr.unpacked()
	names := tarball.do("sed", "-n", "s/^names //p", ".archived")
	if !strings.Contains(names, name) {
		t.Fatalf("the tarball does not carry the name: %s", names)
	}
	hacked := func() bool {
		_, err := os.Stat(filepath.Join(tarball.dir, "hacked"))
		return err == nil
	}
	if got, want := tarball.do("scripts/version"), "0.1.0-dev+"+tr.do("git", "rev-parse", "HEAD")[:12]; got != want || hacked() {
		t.Errorf("%s, want %s; the name was run: %v", got, want, hacked())
	}
	tarball.do("bash", "-c", "names='"+names+"' || true")
	if !hacked() {
		t.Error("the control: the name does no harm even if it is run")
	}
}

// The notes of a release are the section of the changelog, which has a day then.
func TestNotes(t *testing.T) {
	tr := newTree(t)
	const before, after = "# Changelog\n\nAbout it.\n\n## [Unreleased]\n\n", "\n## [0.0.9] - 2026-01-01\n\n- old\n\n[0.1.0]: https://example.com\n"
	tr.write("CHANGELOG.md", before+"## [0.1.0] - 2026-12-24\n\n### Added\n\n- new\n"+after)
	if got, want := tr.do("scripts/notes", "v0.1.0"), "### Added\n\n- new"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for tag, want := range map[string]string{"v0.2.0": "VERSION says 0.1.0", "0.1.0": "usage", "v0.1.0; id": "usage", "": "usage"} {
		if out, err := tr.run("scripts/notes", tag); err == nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v, %s", tag, err, out)
		}
	}
	for _, heading := range []string{"## [0.1.0]", "## [0.1.0] - soon", "## [0x1.0] - 2026-12-24"} {
		tr.write("CHANGELOG.md", before+heading+"\n\n- new\n"+after)
		if out, err := tr.run("scripts/notes", "v0.1.0"); err == nil || !strings.Contains(out, "has no heading '## [0.1.0] - YYYY-MM-DD'") {
			t.Errorf("%q: %v, %s", heading, err, out)
		}
	}
}

// The changelog begins with what VERSION names, under headings that its readers
// and programs know (keepachangelog.com 1.1.0).
func TestChangelog(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`^\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d|unreleased)$`)
	kind := regexp.MustCompile(`^(Added|Changed|Deprecated|Removed|Fixed|Security)$`)
	first := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			m := release.FindStringSubmatch(heading)
			if m == nil {
				t.Errorf("%q is not [VERSION] - YYYY-MM-DD", heading)
			} else if first == "" {
				first = m[1]
			}
		}
		if heading, ok := strings.CutPrefix(line, "### "); ok && !kind.MatchString(heading) {
			t.Errorf("%q is no kind of change", heading)
		}
	}
	if want := strings.TrimSpace(string(version)); first != want {
		t.Errorf("the changelog begins with %q, and VERSION says %s", first, want)
	}
}
