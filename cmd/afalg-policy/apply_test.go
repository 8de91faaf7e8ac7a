package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
)

// liveDir is a directory that nobody but root can change, as a policy's must be.
func liveDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "afalg-policy-test-")
	must(t, err)
	t.Cleanup(func() {
		for _, name := range []string{"policy.yaml", "other.yaml"} {
			os.Remove(keptFile(filepath.Join(dir, name)))
		}
		os.RemoveAll(dir)
	})
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// keptFile is where root keeps the last good state of a policy.
func keptFile(policy string) string {
	return "/var/cache/afalg-policy/plans/" + strings.ReplaceAll(strings.TrimPrefix(policy, "/"), "/", "%") + ".kept"
}

func command(stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	status := run(args, strings.NewReader(stdin), &stdout, &stderr)
	return outcome{stdout.String(), stderr.String(), status}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o640))
}

const (
	policyOne = "version: 1\nname: one\nallow:\n  - {rule: a, users: [root], algorithms: {hash: [sha1]}}\n"
	policyTwo = "version: 1\nname: two\nallow:\n  - {rule: a, users: [root], algorithms: {hash: [sha256]}}\n"
)

func TestApply(t *testing.T) {
	dir := liveDir(t)
	live, next := filepath.Join(dir, "policy.yaml"), filepath.Join(t.TempDir(), "new.yaml")
	apply := func(more ...string) outcome {
		return command("", append([]string{"apply", next, "--policy", live}, more...)...)
	}
	holds := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(live); err != nil || string(got) != want {
			t.Errorf("the policy is %q, %v; want %q", got, err, want)
		}
	}
	writeText(t, live, policyOne)
	must(t, os.Chmod(live, 0o640))

	// An invalid policy replaces nothing; its errors name their places in the file.
	writeText(t, next, "version: 1\nname: two\nalow: []\n")
	if got := apply(); got.status != 1 || !strings.HasPrefix(got.stderr, next+`:3:1: unknown key "alow"`) {
		t.Errorf("%+v", got)
	}
	holds(policyOne)

	// A dry run shows what would change.
	writeText(t, next, policyTwo)
	const lines = "allowed\thash:sha256 for user root\ndenied\thash:sha1 for user root\n"
	if got := apply("--dry-run"); got.status != 0 || got.stdout != lines {
		t.Errorf("%+v", got)
	}
	holds(policyOne)
	var report deploy.Applied
	got := apply("--dry-run", "--json")
	must(t, json.Unmarshal([]byte(got.stdout), &report))
	if report.Applied || report.Policy != live || len(report.Differences) != 2 || report.Before == report.Digest {
		t.Errorf("%+v", report)
	}

	if got := apply(); got.status != 0 || got.stdout != lines || !strings.Contains(got.stderr, "applied: "+live) {
		t.Errorf("%+v", got)
	}
	holds(policyTwo)
	if info, err := os.Stat(live); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := apply(); got.status != 0 || got.stdout != "unchanged: it means what was in force\n" {
		t.Errorf("%+v", got)
	}

	// Edited in place, it is compared with what is in force.
	writeText(t, live, policyOne)
	if got := command("", "apply", live, "--policy", live); got.status != 0 || !strings.Contains(got.stdout, "allowed\thash:sha1 for user root\n") {
		t.Errorf("%+v", got)
	}

	// Includes are found from where the policy will be.
	writeText(t, next, "version: 1\nname: three\ninclude: [./other.yaml]\n")
	if got := apply(); got.status == 0 {
		t.Errorf("%+v", got)
	}
	writeText(t, filepath.Join(dir, "other.yaml"), policyTwo)
	if got := apply(); got.status != 0 || got.stdout != lines {
		t.Errorf("%+v", got)
	}
	must(t, os.Chmod(filepath.Join(dir, "other.yaml"), 0o666))
	if got := apply(); got.status == 0 || !strings.Contains(got.stderr, "can be written by others than root") {
		t.Errorf("%+v", got)
	}
}

// Others could put another policy in place there.
func TestApplyRefusesPlaces(t *testing.T) {
	dir := liveDir(t)
	next := filepath.Join(t.TempDir(), "new.yaml")
	writeText(t, next, policyTwo)
	writeText(t, filepath.Join(dir, "real.yaml"), policyOne)
	must(t, os.Symlink("real.yaml", filepath.Join(dir, "link.yaml")))
	must(t, os.Mkdir(filepath.Join(dir, "open"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
	for name, want := range map[string]string{
		"link.yaml": "is a link to real.yaml", "open/policy.yaml": "can be written by others than root", "none/policy.yaml": "no such file or directory",
	} {
		got := command("", "apply", next, "--policy", filepath.Join(dir, name))
		if got.status == 0 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := command("", "apply", next, "--policy", "relative.yaml"); got.status != 2 || !strings.Contains(got.stderr, "the path must be absolute") {
		t.Errorf("%+v", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "real.yaml")); err != nil || string(text) != policyOne {
		t.Errorf("%q, %v", text, err)
	}
}

// A slip in the policy does not stop containers: they start under its last good
// state. Where none is known they do not start.
func TestLastGoodPolicy(t *testing.T) {
	const spec = `{"ociVersion": "1.0.2", "root": {"path": "/r"}, "linux": {}}`
	dir := liveDir(t)
	live, log := filepath.Join(dir, "policy.yaml"), filepath.Join(t.TempDir(), "log.json")
	harden := func() outcome { return command(spec, "hook", "precreate", "--policy", live, "--decision-log", log) }
	const slip = "version: 1\nname: slip\ncontainers: {unconfined: alow}\n"
	writeText(t, live, slip)
	if got := harden(); got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, `did you mean "allow"?`) {
		t.Errorf("nothing was kept: %+v", got)
	}
	for _, unconfined := range []string{"harden", "refuse"} {
		good := "version: 1\nname: good\ncontainers: {unconfined: " + unconfined + "}\n"
		writeText(t, live, good)
		want := harden()
		if started := unconfined == "harden"; (want.status == 0) != started {
			t.Fatalf("%s: %+v", unconfined, want)
		}
		for _, breakIt := range []func(){func() { writeText(t, live, slip) }, func() { must(t, os.Remove(live)) }} {
			breakIt()
			got := harden()
			if got.status != want.status || got.stdout != want.stdout || !strings.Contains(got.stderr, "stays in force: ") {
				t.Errorf("%s, broken: %+v", unconfined, got)
			}
		}
	}
	text, err := os.ReadFile(log)
	must(t, err)
	if n := bytes.Count(text, []byte(`"level":"ERROR","msg":"policy","reason":"afalg-policy: the policy `+live+` cannot be read, and its last good state (sha256:`)); n != 4 {
		t.Errorf("it is told %d times:\n%s", n, text)
	}
	// Another's file is none of ours.
	writeText(t, live, slip)
	kept := filepath.Dir(keptFile(live))
	must(t, os.Chmod(kept, 0o777))
	defer os.Chmod(kept, 0o700)
	if got := harden(); got.status != 1 || strings.Contains(got.stderr, "stays in force") {
		t.Errorf("others can write what is kept: %+v", got)
	}
}
