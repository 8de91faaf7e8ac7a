package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/term"
	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
)

var must = hosttest.Must

// An installed default profile is proved closed: for the bases of Docker and of
// Podman, and without a base.
func TestHardenBase(t *testing.T) {
	p, _, err := plan.Load("builtin:fips", plan.ReadNamed)
	must(t, err)
	podman, err := bounded.ReadFile("/usr/share/containers/seccomp.json", jsontext.Max)
	must(t, err)
	docker, err := jsontext.Encode(profile.Docker())
	must(t, err)
	fromDocker, err := hardenBase(p, "a test", docker, harden.SocketcallDeny)
	must(t, err)
	for name, base := range map[string][]byte{"none": nil, "podman": podman} {
		data, err := hardenBase(p, "a test", base, harden.SocketcallDeny)
		must(t, err)
		if !json.Valid(data) || name == "none" && !bytes.Equal(data, fromDocker) || name != "none" && bytes.Equal(data, fromDocker) {
			t.Errorf("base %s: %d bytes", name, len(data))
		}
	}
	// Where nothing was filtered, AF_ALG is closed and the rest stays open.
	data, err := hardenBase(p, "a test", []byte("{}"), harden.SocketcallDeny)
	must(t, err)
	path := filepath.Join(t.TempDir(), "profile.json")
	must(t, os.WriteFile(path, data, 0o644))
	reader := source.Reader{Caps: profile.DefaultCaps()}
	r, err := report.Questions{}.Ask(reader.Read([]string{path}, nil), &reader.Memo)
	must(t, err)
	if r.Verdict != report.Closed {
		t.Errorf("without a base it is %s", r.Verdict)
	}
	if !strings.Contains(string(data), `"defaultAction": "SCMP_ACT_ALLOW"`) {
		t.Errorf("%s", data)
	}
	if _, err := hardenBase(p, "a test", []byte(" "), harden.SocketcallDeny); err == nil {
		t.Error("an empty text is a base")
	}
}

// The installer lists every container that would not start any more.
func TestUnconfinedIsRefused(t *testing.T) {
	for u, want := range map[plan.Unconfined]bool{"": true, plan.Refuse: true, plan.LSM: true, plan.Harden: false, plan.Allow: false} {
		if got := unconfinedOf(&plan.Plan{Unconfined: u, UnconfinedSaid: true}); got.Refused != want || !got.Said {
			t.Errorf("%q: %+v", u, got)
		}
	}
}

// A default profile is of what a policy closes: where its rules change, nothing has
// to be restarted.
func TestDefaultProfileOfWhatCloses(t *testing.T) {
	base := []byte(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"}]}`)
	of := func(deny string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		must(t, os.WriteFile(path, []byte("version: 1\nname: one\n"+deny), 0o644))
		p, _, err := plan.Load(path, plan.ReadNamed)
		must(t, err)
		hardened, err := hardenBase(p, "a test", base, harden.SocketcallDeny)
		must(t, err)
		return string(hardened)
	}
	plain := of("")
	if d := cmp.Diff(plain, of("allow: [{rule: a, users: [root], algorithms: {hash: [sha1]}}]\ncontainers: {unconfined: harden, grants: [{rules: [a], names: [web]}]}\n")); d != "" {
		t.Error(d)
	}
	closed := of("deny: {families: [AF_RXRPC]}\n")
	for text, want := range map[string]string{plain: "from policy one (EAFNOSUPPORT for AF_ALG)", closed: "from policy one (EAFNOSUPPORT for AF_ALG, AF_RXRPC)"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %s in\n%s", want, text)
		}
	}
}

// For each default that Docker had, what is installed is equal to it: all calls
// but those that make sockets, which package gen compares by family.
func TestHardenDockerDefaults(t *testing.T) {
	versions := []string{"29.7.2", "25.0.5", "20.10.24"}
	if testing.Short() {
		versions = versions[:1]
	}
	hardenDockerDefaults(t, versions...)
}

// TestLongHardenDockerDefaults has a version for each default that changed.
func TestLongHardenDockerDefaults(t *testing.T) {
	hardenDockerDefaults(t, "20.10.0", "20.10.4", "20.10.10", "20.10.22", "20.10.26", "23.0.6", "23.0.9", "23.0.18", "25.0.0", "28.5.2", "29.4.2")
}

func hardenDockerDefaults(t *testing.T, versions ...string) {
	t.Helper()
	p, _, err := plan.Load("builtin:fips", plan.ReadNamed)
	must(t, err)
	t.Chdir(t.TempDir())
	arch, err := profile.ArchByName(runtime.GOARCH)
	must(t, err)
	reader := source.Reader{Arch: arch, Caps: profile.DefaultCaps()}
	except := report.Exceptions{Families: []uint32{afalg.Family}}
	for _, call := range []string{"socket", "socketpair", "socketcall"} {
		q, err := verify.ParseQuery(call)
		must(t, err)
		except.Queries = append(except.Queries, q)
	}
	for _, version := range versions {
		base, known, err := profile.DockerOf(version)
		if err != nil || !known {
			t.Fatalf("%s: known %v, %v", version, known, err)
		}
		data, err := hardenBase(p, "a test", base, harden.SocketcallDeny)
		if err != nil {
			t.Errorf("%s: %v", version, err)
		}
		must(t, errors.Join(os.WriteFile("base.json", base, 0o600), os.WriteFile("hardened.json", data, 0o600)))
		in := reader.Read([]string{"base.json", "hardened.json"}, nil)
		if len(in.Broken) > 0 {
			t.Fatal(in.Broken)
		}
		r, err := report.Compare(in.Of(0), in.Of(1), except)
		if err != nil || r.Verdict != report.Equal {
			t.Errorf("%s: %v, %+v", version, err, r)
		}
	}
}

// shown is what a text consists of.
type shown struct{ results, notes string }

func show(done *install.Result, dryRun bool) shown {
	var out, notes bytes.Buffer
	r := newResult("install", "docker", dryRun)
	r.take(done)
	r.Text(&term.Printer{Out: &out, Notes: &notes})
	return shown{out.String(), notes.String()}
}

func TestResultText(t *testing.T) {
	r := install.Result{
		Changes: []install.Change{{Path: "/a", What: "new", Diff: "+a\n"}, {Path: "/b\x1b", What: "changed", Diff: "-b\n+c\x1b\n"}},
		Notes:   []string{"n"}, Restart: []string{"systemctl restart x"}, Recovered: true, Kept: "containers",
	}
	for name, tt := range map[string]struct {
		result install.Result
		dryRun bool
		want   shown
	}{
		"done": {r, false, shown{"new\t/a\nchanged\t/b" + `\x1b` + "\n",
			"an earlier run was interrupted; this one goes on from there\nnote: n\ninstalled; containers that run keep what they were started with. Now run:\n  systemctl restart x\n"}},
		"dry run": {r, true, shown{"+a\n-b\n+c" + `\x1b` + "\n", "an earlier run was interrupted; this one goes on from there\nnote: n\n"}},
		"nothing": {install.Result{}, false, shown{"unchanged\n", ""}},
	} {
		if diff := cmp.Diff(tt.want, show(&tt.result, tt.dryRun), cmp.AllowUnexported(shown{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A long file of ours is shown in brief, one of others whole.
func TestDryRunInBrief(t *testing.T) {
	long := strings.Repeat("+x\n", 300)
	r := install.Result{Changes: []install.Change{{What: "new", Diff: long}, {What: "removed", Diff: long}, {What: "changed", Diff: long}, {What: "restored", Diff: long}}}
	brief := strings.Repeat("+x\n", 10) + "... 290 more lines: --json has them\n"
	if diff := cmp.Diff(brief+brief+long+long, show(&r, true).results); diff != "" {
		t.Error(diff)
	}
}
