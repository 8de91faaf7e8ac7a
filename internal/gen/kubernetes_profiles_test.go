package gen

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func kubernetesPlan(t *testing.T, text string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load("p.yaml", func(string) ([]byte, error) { return []byte("version: 1\nname: p\n" + text), nil })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const kubernetesRules = `
allow:
  - {rule: digest, anyone: true, algorithms: {hash: [sha256]}}
  - {rule: vpn, users: [root], algorithms: {aead: ["rfc4106(gcm(aes))"]}}
  - {rule: keys, anyone: true, algorithms: {rng: [stdrng]}}
`

// Each set of rules that some container holds has a file, and the file asks the
// agent for these rules and no others.
func TestKubernetesProfiles(t *testing.T) {
	p := kubernetesPlan(t, kubernetesRules+`
containers:
  grants:
    - {rules: [digest], namespaces: [crypto, shop]}
    - {rules: [vpn], namespaces: [crypto], pods: [gate]}
    - {rules: [vpn], platforms: [docker], names: [gate]}
    - {rules: [keys], namespaces: [crypto], labels: {a: b}}
`)
	files, gaps, err := KubernetesProfiles(p, SeccompOptions{Common: Common{Tool: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]string{}
	for _, f := range files {
		read, err := profile.Parse(f.Data)
		if err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
		if read.ListenerPath == "" {
			held[f.Path] = "nothing"
			continue
		}
		m, err := plan.ParseMetadata(read.ListenerMetadata)
		if err != nil || read.ListenerPath != DefaultAgent {
			t.Fatalf("%s: listener %q, %v", f.Path, read.ListenerPath, err)
		}
		held[f.Path] = strings.Join(m.Grants, " ")
	}
	want := map[string]string{
		kube.DefaultProfile:                    "nothing",
		"afalg-policy/granted/digest.json":     "digest",
		"afalg-policy/granted/digest.vpn.json": "digest vpn",
	}
	if diff := cmp.Diff(want, held); diff != "" {
		t.Error(diff)
	}
	for _, g := range gaps {
		if g.Kind == plan.Wider {
			t.Errorf("%s", g)
		}
	}
	if !slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Name == "keys" && strings.Contains(g.Text, "cannot vouch for labels") }) {
		t.Errorf("%v", gaps)
	}
}

// What a file would open beyond the policy is not written until it is accepted.
func TestKubernetesProfilesRefused(t *testing.T) {
	p := kubernetesPlan(t, kubernetesRules+`
containers:
  grants:
    - {rules: [digest], namespaces: [crypto], decided-by: lsm}
    - {rules: [keys], namespaces: [shop], images: ["sha256:6b1c7e3b5f0d4a9e8c2f1d0b7a6e5c4d3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c"]}
`)
	o := SeccompOptions{Common: Common{Tool: "test", Grants: []string{"keys"}}}
	_, _, err := KubernetesProfiles(p, o)
	open, is := errors.AsType[*plan.UnacceptedError](err)
	if !is {
		t.Fatalf("%v", err)
	}
	var names []string
	for _, g := range open.Gaps {
		names = append(names, g.Name)
	}
	if diff := cmp.Diff([]string{"keys", "decided-by-lsm"}, names); diff != "" {
		t.Error(diff)
	}
	o.Accept = []string{"decided-by-lsm", "keys"}
	files, _, err := KubernetesProfiles(p, o)
	if err != nil || len(files) != 3 {
		t.Errorf("%d files, %v", len(files), err)
	}
}
