package gen

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// oneAlgorithm is what a rule allows where it does not matter.
var oneAlgorithm = policy.Algorithms{{Algorithm: afalg.Algorithm{Type: "hash", Name: "sha1"}}}

// wirelessPlan has a rule for a unit and one for a binary.
func wirelessPlan() *plan.Plan {
	return &plan.Plan{
		Name:        "wireless",
		Digest:      "sha256:0123",
		SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: 97},
		Families:    []policy.Family{{Name: "AF_RXRPC", Number: 33}},
		Rules: []policy.Rule{
			{Name: "hasher", Binaries: []policy.Binary{{Path: "/usr/bin/kcapi-hasher"}}, Algorithms: oneAlgorithm},
			{Name: "iwd", Units: []string{"iwd.service"}, Algorithms: oneAlgorithm},
		},
	}
}

// compareTree compares files with those below a directory, all of them.
func compareTree(t *testing.T, dir string, files []File) {
	t.Helper()
	if *update {
		writeTree(t, dir, files)
		return
	}
	want := map[string]string{}
	walk := func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		want[name] = string(data)
		return err
	}
	if err := filepath.WalkDir(dir, walk); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, fileMap(files)); diff != "" {
		t.Errorf("-golden +generated (go test -update rewrites):\n%s", diff)
	}
}

func writeTree(t *testing.T, dir string, files []File) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func fileMap(files []File) map[string]string {
	m := map[string]string{}
	for _, f := range files {
		m[f.Path] = string(f.Data)
	}
	return m
}
