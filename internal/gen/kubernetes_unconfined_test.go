package gen

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const someArtifact = "registry.example/afalg-policy@sha256:6b1c7e3b5f0d4a9e8c2f1d0b7a6e5c4d3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c"

// openPods are those that a policy may leave to the nodes, and attacks by names that
// come close to them.
var openPods = []podCase{
	{name: "privileged", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {privileged: true}}]"},
	{name: "Unconfined", pod: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c}]"},
	{name: "nothing", pod: "containers: [{name: c}]"},
	{name: "RuntimeDefault", pod: "securityContext: {seccompProfile: TYPE(RuntimeDefault)}\ncontainers: [{name: c}]"},
	{name: "localhost", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x.json}}\ncontainers: [{name: c}]"},
	{name: "ours by another spelling", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x/./afalg-policy/granted/digest.json}}\ncontainers: [{name: c}]"},
	{name: "ours of another namespace", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c}]"},
	{name: "artifact", pod: "securityContext: {seccompProfile: {type: OCI, oci: {ref: \"" + someArtifact + "\"}}}\ncontainers: [{name: c}]"},
	{name: "another artifact", pod: "securityContext: {seccompProfile: {type: OCI, oci: {ref: \"" + strings.Replace(someArtifact, "6b", "6c", 1) + "\"}}}\ncontainers: [{name: c}]"},
}

func TestKubernetesUnconfined(t *testing.T) {
	const standing = "RuntimeDefault nothing"
	for _, tt := range []struct {
		unconfined, accept string
		alone, mutated     string // those that are admitted
	}{
		{"refuse", "", "", standing},
		{"harden", "", "", standing},
		{"lsm", "", "", standing},
		{"allow", "", "Unconfined privileged", "RuntimeDefault Unconfined nothing privileged"},
		{"harden", "unconfined", "Unconfined privileged", "RuntimeDefault Unconfined nothing privileged"},
		{"lsm", "unconfined", "Unconfined privileged", "RuntimeDefault Unconfined nothing privileged"},
		{"refuse", "unconfined", "", standing}, // an error of Kubernetes, and no more here
		{"refuse", "runtime-default", "RuntimeDefault", standing},
		{"refuse", "localhost", "localhost", "RuntimeDefault localhost nothing"},
		{"harden", "unconfined runtime-default localhost", "RuntimeDefault Unconfined localhost nothing privileged", "RuntimeDefault Unconfined localhost nothing privileged"},
	} {
		t.Run(tt.unconfined+" "+tt.accept, func(t *testing.T) {
			p := kubernetesPlan(t, kubernetesRules+"containers:\n  unconfined: "+tt.unconfined+"\n  grants:\n    - {rules: [digest], namespaces: [crypto]}\n")
			o := KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Tool: "test", Accept: strings.Fields(tt.accept)}}}
			validating := []string{"audit/policy.yaml", "deny/binding.yaml"}
			for _, step := range []struct{ want, files string }{{tt.alone, ""}, {tt.mutated, "mutate/policy.yaml mutate/binding.yaml"}} {
				a := askServer(t, objectsOf(t, p, o, append(validating, strings.Fields(step.files)...)...), openPods)
				if diff := cmp.Diff(strings.Fields(step.want), admittedOf(a)); diff != "" || a.Invalid != nil {
					t.Errorf("with %q: %v\n%s", step.files, a.Invalid, diff)
				}
			}
		})
	}
}

func admittedOf(a *serverAnswer) []string {
	var all []string
	for i, c := range openPods {
		if len(a.Case[i].Denied) == 0 {
			all = append(all, c.name)
		}
	}
	return append([]string{}, distinct(all)...)
}

// What is left to the nodes is a wider gap, and what is not is a stricter one.
func TestKubernetesUnconfinedGaps(t *testing.T) {
	for _, tt := range []struct{ unconfined, accept, want string }{
		{"refuse", "admission", "wider admission, stricter localhost, stricter runtime-default"},
		{"allow", "admission", "wider admission, stricter localhost, stricter runtime-default"},
		{"harden", "admission", "wider admission, stricter localhost, stricter runtime-default, stricter unconfined"},
		{"lsm", "admission", "wider admission, stricter localhost, stricter runtime-default, stricter unconfined"},
		{"harden", "admission unconfined runtime-default localhost", "wider admission, wider localhost, wider runtime-default, wider unconfined"},
		{"lsm", "admission unconfined", "wider admission, stricter localhost, stricter runtime-default, wider unconfined"},
	} {
		p := kubernetesPlan(t, "containers: {unconfined: "+tt.unconfined+"}\n")
		_, gaps, err := Kubernetes(p, KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Tool: "test", Accept: strings.Fields(tt.accept)}}})
		if err != nil {
			t.Errorf("%s: %v", tt.unconfined, err)
		}
		var got []string
		for _, name := range []string{gapAdmission, gapLocalhost, gapRuntimeDefault, gapUnconfined} {
			for _, g := range gaps {
				if g.Name == name {
					got = append(got, fmt.Sprintf("%s %s", g.Kind, g.Name))
				}
			}
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s, %s:\n%s", tt.unconfined, tt.accept, diff)
		}
	}
	for _, accept := range []string{"", "admission unconfined"} {
		_, _, err := Kubernetes(&plan.Plan{Name: "p", SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: 97}}, KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Tool: "test", Accept: strings.Fields(accept)}}})
		if err == nil {
			t.Errorf("accepted %q, and nothing is refused", accept)
		}
	}
}

// The artifact is admitted by its digest alone.
func TestKubernetesArtifactAdmitted(t *testing.T) {
	o := KubernetesOptions{Artifact: someArtifact}
	a := askServer(t, objectsOf(t, kubernetesPlan(t, ""), o, "audit/policy.yaml", "deny/binding.yaml"), openPods)
	// The API of the program's release has no such field yet, and drops it.
	if diff := cmp.Diff([]string{}, admittedOf(a)); diff != "" || a.Invalid != nil {
		t.Errorf("%v\n%s", a.Invalid, diff)
	}
	for _, ref := range []string{"registry.example/p:tag", "p@sha256:" + strings.Repeat("0", 64), "r.example/p@sha256:0", "r.example/p'@sha256:" + strings.Repeat("0", 64)} {
		if _, _, err := Kubernetes(kubernetesPlan(t, ""), KubernetesOptions{Artifact: ref}); err == nil || !strings.Contains(err.Error(), "REGISTRY/REPOSITORY@sha256:DIGEST") {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestKubernetesTooLargePolicy(t *testing.T) {
	for want, grants := range map[string]string{
		"more than 3000 values":        strings.Repeat("    - {rules: [digest], namespaces: [a], pods: [p], names: [n]}\n", 1) + manyGrants("namespaces: [ns%d]", 1_500),
		"more than 10000 kinds":        manyGrants("pods: [p%d], names: [n%[1]d]", 200),
		"more than 100 different sets": "",
	} {
		text := kubernetesRules
		if grants == "" {
			text = "allow:\n"
			for i := range maxKubernetesSets + 1 {
				text += fmt.Sprintf("  - {rule: r%d, anyone: true, algorithms: {hash: [sha256]}}\n", i)
				grants += fmt.Sprintf("    - {rules: [r%d], namespaces: [ns%[1]d]}\n", i)
			}
		}
		_, _, err := KubernetesProfiles(kubernetesPlan(t, text+"containers:\n  grants:\n"+grants), SeccompOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func manyGrants(condition string, n int) (text string) {
	for i := range n {
		text += "    - {rules: [digest], " + fmt.Sprintf(condition, i) + "}\n"
	}
	return text
}

// The largest policy that is taken is decided within the server's budget for one
// request; beyond it the server would refuse every pod.
func TestKubernetesLargePolicy(t *testing.T) {
	var b strings.Builder
	b.WriteString("allow:\n")
	for i := range maxKubernetesSets {
		fmt.Fprintf(&b, "  - {rule: r%d, anyone: true, algorithms: {hash: [sha256]}}\n", i)
	}
	b.WriteString("containers:\n  grants:\n")
	for i := range maxKubernetesSets {
		fmt.Fprintf(&b, "    - {rules: [r%d], namespaces: [", i)
		for j := range maxAdmissionEntries/maxKubernetesSets - 2 {
			fmt.Fprintf(&b, "ns-%d-%d, ", i, j)
		}
		b.WriteString("]}\n")
	}
	p := kubernetesPlan(t, b.String())
	last := fmt.Sprintf("ns-%d-%d", maxKubernetesSets-1, maxAdmissionEntries/maxKubernetesSets-3)
	file := fmt.Sprintf("FILE(granted/r%d.json)", maxKubernetesSets-1)
	containers := ""
	for i := range 100 {
		containers += fmt.Sprintf("{name: c%d, securityContext: {seccompProfile: %s}}, ", i, file)
	}
	pod := podCase{name: "large", namespace: last, pod: "containers: [" + containers + "]"}
	elsewhere := pod
	elsewhere.namespace = "elsewhere"
	a := askServer(t, admissionObjects(t, p, "audit/policy.yaml", "deny/binding.yaml", "mutate/policy.yaml", "mutate/binding.yaml"), []podCase{pod, elsewhere})
	if a.Invalid != nil || a.Case[0].Denied != nil {
		t.Errorf("%.300v %.300v", a.Invalid, a.Case[0].Denied)
	}
	if len(a.Case[1].Denied) == 0 || !strings.Contains(a.Case[1].Denied[0], "AF_ALG is not closed to a container") {
		t.Errorf("%.300v", a.Case[1].Denied)
	}
}
