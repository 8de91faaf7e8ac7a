package host

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// load loads a policy, by a name or as a text.
func load(t testing.TB, text string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load("p.yaml", func(name string) ([]byte, error) {
		if name == "p.yaml" {
			return []byte(text), nil
		}
		return plan.ReadNamed(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func told(t testing.TB, g hostfacts.Given) hostfacts.Facts {
	t.Helper()
	f, err := hostfacts.Told(g)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	onlyFIPS  = "version: 1\nname: p\ninclude: [builtin:fips]\n"
	wholeHost = `version: 1
name: p
deny:
  presets: [page-cache]
  families: [AF_ATMPVC, AF_ATMSVC, AF_CAN]
  user-namespaces: true
`
	// el9 is a kernel that has AF_ALG built in.
	el9 = "kernel/crypto/af_alg.ko\nkernel/crypto/algif_aead.ko\nkernel/crypto/algif_hash.ko\nkernel/crypto/algif_rng.ko\nkernel/crypto/algif_skcipher.ko\n"
)

func TestGolden(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		facts        hostfacts.Given
		accept       []string
	}{
		{"fips-any", onlyFIPS, hostfacts.Given{}, []string{"dracut-fips", "fips-integrity-check", "hmaccalc"}},
		{"fips-el9", onlyFIPS, hostfacts.Given{Release: "5.14.0-570.el9.x86_64", Builtin: []byte(el9)}, []string{"dracut-fips", "fips-integrity-check", "hmaccalc"}},
		{"whole-any", wholeHost, hostfacts.Given{}, []string{"sockets"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Common: gen.Common{Tool: "afalg-policy test", Accept: tt.accept}}
			files, _, _, err := Host(load(t, tt.policy), told(t, tt.facts), Forms()[0], o)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join("testdata", tt.name), files)
		})
	}
}

func compare(t *testing.T, dir string, files []gen.File) {
	t.Helper()
	got, want := map[string]string{}, map[string]string{}
	for _, f := range files {
		got[f.Path] = string(f.Data)
		if *update {
			path := filepath.Join(dir, f.Path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		data, err := os.ReadFile(path)
		want[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-golden +generated (go test -update rewrites):\n%s", diff)
	}
}
