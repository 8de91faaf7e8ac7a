package gen

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// The output as it is read by people. The profiles are proved, and compared with
// nothing here.
func TestKubernetesGolden(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		options      KubernetesOptions
	}{
		{"files", kubernetesTable, KubernetesOptions{}},
		{"nodes", "containers: {unconfined: harden}\n", KubernetesOptions{Artifact: someArtifact,
			SeccompOptions: SeccompOptions{Common: Common{Accept: []string{gapUnconfined, gapRuntimeDefault, gapLocalhost}}}}},
		{"operator", "deny: {families: [AF_RXRPC]}\n", KubernetesOptions{Carrier: CarrierOperator}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := kubernetesPlan(t, tt.policy)
			p.Digest = "sha256:0123"
			o := tt.options
			o.Tool, o.Accept = "afalg-policy test", append(o.Accept, gapAdmission)
			files, _, err := Kubernetes(p, o)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range files {
				if slices.ContainsFunc(files[i+1:], func(g File) bool { return g.Path == f.Path }) {
					t.Errorf("%s is written twice", f.Path)
				}
			}
			compareTree(t, "testdata/kubernetes/"+tt.name, slices.DeleteFunc(files, func(f File) bool {
				return strings.HasPrefix(f.Path, "profiles/") || f.Path == "operator/seccomp.yaml"
			}))
		})
	}
}

// Each step is what kubectl apply -k takes, rendered by kustomize itself. The last has
// the policy of the first, and refuses.
func TestKubernetesOverlays(t *testing.T) {
	const files = "testdata/kubernetes/files/"
	for step, want := range map[string][]string{
		"audit":  {"kind: ValidatingAdmissionPolicy\n", "kind: ValidatingAdmissionPolicyBinding\n", "  - Audit\n  - Warn\n"},
		"mutate": {"kind: MutatingAdmissionPolicy\n", "kind: MutatingAdmissionPolicyBinding\n"},
		"deny":   {"kind: ValidatingAdmissionPolicy\n", "kind: ValidatingAdmissionPolicyBinding\n", "  validationActions:\n  - Deny\n  - Audit\n"},
	} {
		out, err := exec.Command(clusterProgram(t, "overlay"), files+step).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", step, err, out)
		}
		for _, text := range want {
			if !strings.Contains(string(out), text) {
				t.Errorf("%s: no %q in\n%s", step, text, out)
			}
		}
		if step == "deny" && strings.Contains(string(out), "- Warn") {
			t.Errorf("%s warns:\n%s", step, out)
		}
	}
}

// What admission does not see is not written until it is taken on, and no other name
// is.
func TestKubernetesRefuses(t *testing.T) {
	p := kubernetesPlan(t, "")
	for _, tt := range []struct {
		o    KubernetesOptions
		want string
	}{
		{KubernetesOptions{}, "accept with --accept admission"},
		{KubernetesOptions{Carrier: "pigeon"}, `unknown carrier of profiles "pigeon"`},
		{KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Accept: []string{gapAdmission, "nonsense"}}}}, "--accept nonsense: this output has no wider gap of that name"},
		{KubernetesOptions{Carrier: CarrierOperator, SeccompOptions: SeccompOptions{Common: Common{Accept: []string{gapAdmission}}, Socketcall: "broker"}}, "socketcall broker needs a listener"},
	} {
		files, _, err := Kubernetes(p, tt.o)
		if err == nil || files != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d files, %v; want %s", len(files), err, tt.want)
		}
	}
	if _, _, err := Kubernetes(&plan.Plan{}, KubernetesOptions{}); err == nil {
		t.Error("the zero plan is taken")
	}
}

// A text of CEL holds whatever a name holds.
func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{"a": "'a'", "it's": `'it\'s'`, `\`: `'\\'`, "a\nb": `'a\nb'`} {
		if got := quoted(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
