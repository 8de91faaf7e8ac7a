package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

const module = "github.com/afalg-policy/afalg-policy/"

// layers lists what each package may import of this module; there are no other
// arrows.
var layers = map[string][]string{
	"cmd/afalg-policy":               {"internal/afalg", "internal/agent", "internal/broker", "internal/gen", "internal/install", "internal/kernel", "internal/launch", "internal/learn", "internal/live", "internal/notify", "internal/oci", "internal/plan", "internal/policy", "internal/probe", "internal/profile", "internal/seccomp", "internal/subject", "internal/telemetry", "internal/verify", "internal/vouch", "internal/bpf", "policies"},
	"policies":                       {},
	"internal/afalg":                 {},
	"internal/policy":                {"internal/afalg"},
	"internal/plan":                  {"internal/afalg", "internal/policy", "policies"},
	"internal/seccomp":               {},
	"internal/bpf":                   {},
	"internal/verify":                {"internal/afalg", "internal/bpf", "internal/profile", "internal/seccomp"}, // reads profiles as text, for their findings
	"internal/gen":                   {"internal/afalg", "internal/bpf", "internal/edit", "internal/plan", "internal/policy", "internal/profile", "internal/seccomp", "internal/verify"},
	"internal/profile":               {"internal/afalg"},
	"internal/edit":                  {"internal/profile"},
	"internal/vouch":                 {"internal/plan", "internal/profile"},
	"internal/oci":                   {"internal/gen", "internal/plan", "internal/profile"},
	"internal/install":               {"dist", "internal/edit", "internal/install/host", "internal/profile"},
	"internal/install/host":          {},
	"internal/install/host/hosttest": {},
	"dist":                           {},
	"internal/kernel":                {},
	"internal/live":                  {"internal/bpf"},
	"internal/notify":                {},
	"internal/subject":               {},
	"internal/broker":                {"internal/afalg", "internal/notify", "internal/plan", "internal/subject"},
	"internal/launch":                {"internal/notify"},
	"internal/learn":                 {"internal/afalg", "internal/policy"},
	"internal/telemetry":             {"internal/afalg", "internal/broker"},
	"internal/agent":                 {"internal/afalg", "internal/broker", "internal/notify", "internal/plan"},
	"internal/oracle":                {"internal/afalg", "internal/bpf", "internal/seccomp", "internal/verify"},
	"internal/probe":                 {"internal/afalg", "internal/kernel"},
	"internal/vmtest":                {"internal/vmtest/wire"},
	"internal/vmtest/guest":          {"internal/vmtest/wire"},
	"internal/vmtest/wire":           {},
	"bench":                          {"internal/afalg", "internal/bpf", "internal/broker", "internal/launch", "internal/notify", "internal/subject", "internal/telemetry", "internal/telemetry", "internal/gen", "internal/plan", "internal/profile", "internal/seccomp", "internal/verify", "policies"},
	"scripts/check":                  {},
}

// only lists who may import what is kept in one place.
var only = map[string][]string{
	"C":                                    {}, // libseccomp-golang brings cgo in
	"github.com/seccomp/libseccomp-golang": {"internal/seccomp"},
	"github.com/spf13/cobra":               {"cmd/afalg-policy"},
	"github.com/spf13/cobra/doc":           {"cmd/afalg-policy"},
}

func TestLayers(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := layers[name]
		if !known {
			t.Errorf("package %s has no place in the layers", name)
		}
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s: that arrow is not in the layers", name, own)
			}
			if users, kept := only[imported]; kept && !slices.Contains(users, name) {
				t.Errorf("%s imports %s, which is for %v", name, imported, users)
			}
		}
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	d := json.NewDecoder(out)
	for {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(packages) < len(layers)/2 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	return packages
}

// The platforms of a grant are those that somebody vouches for; the packages
// do not know each other.
func TestPlatformsAgree(t *testing.T) {
	if a, b := policy.Platforms(), vouch.Platforms(); !slices.Equal(a, b) {
		t.Errorf("a grant may name %v, and containers are of %v", a, b)
	}
}
