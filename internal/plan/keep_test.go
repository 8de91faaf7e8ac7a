package plan

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestStore(t *testing.T) {
	s := Store{Dir: t.TempDir(), Read: ReadFile}
	const name = "/etc/afalg-policy/policy.yaml"
	if p, err := s.Kept(name); p != nil || err == nil {
		t.Errorf("nothing was kept: %v, %v", p, err)
	}
	p := mustLoad(t, "p", "-- p --\n"+strings.Replace(differencesBefore, "deny:", "include: [q]\ndeny:", 1)+
		"-- q --\nversion: 1\nname: q\nallow:\n  - {rule: included, anyone: true, algorithms: {rng: [jitterentropy_rng]}}\n")
	keep := func(p *Plan) fs.FileInfo {
		t.Helper()
		if err := s.Keep(name, p); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := keep(p)
	got, err := s.Kept(name)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != p.Digest || got.Name != "node" {
		t.Errorf("%s %s, want %s", got.Name, got.Digest, p.Digest)
	}
	if d := Differences(p, got); d != nil {
		t.Errorf("it means something else: %v", d)
	}
	if again := keep(p); !os.SameFile(first, again) {
		t.Error("the same was written again")
	}
	if _, err := s.Kept("/etc/afalg-policy%policy.yaml"); err == nil {
		t.Error("another policy of that file name was taken for it")
	}

	// A damaged state counts as none.
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{
		"hmac(sha256)": "hmac(sha384)", "digest sha256:": "digest sha256:0", "containers:": "container:", "users: [root]": "users: [daemon]",
	} {
		damaged := strings.Replace(string(text), old, bad, 1)
		if damaged == string(text) {
			t.Fatalf("%s is not in\n%s", old, text)
		}
		if err := os.WriteFile(s.path(name), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := s.Kept(name); p != nil || err == nil {
			t.Errorf("with %s: %v", bad, p)
		}
	}
	if last := keep(p); os.SameFile(first, last) {
		t.Error("a damaged one stays")
	}
	if err := s.Keep(name, &Plan{Rules: []policy.Rule{{Name: "r"}}}); err == nil {
		t.Error("what is no policy was kept")
	}
	if d := cmp.Diff([]string{s.path(name)}, glob(t, s.Dir)); d != "" {
		t.Error(d)
	}
}

func glob(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}
