//go:build vm

package vmtest

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/testing/cluster"
)

// Namespaces of the test, beside default.
const (
	granting   = "crypto"     // the policy grants its pods a rule
	exempted   = "exempt"     // has our label
	restricted = "restricted" // has Pod Security at its strictest
)

// clusterPolicy grants a rule to the pods of one namespace.
func clusterPolicy(t *testing.T, unconfined string) []byte {
	t.Helper()
	return append(containerPolicy(t), "containers:\n  unconfined: "+unconfined+"\n  grants:\n    - {rules: [digest], namespaces: ["+granting+"]}\n"...)
}

// admitted is a pod, and what becomes of it. The API server is asked without the pod
// being made.
type admitted struct {
	namespace, spec string
	// denied is the reason for which the policy refuses the pod; "" if it does not.
	denied string
	// chosen is the profile that the pod gets where profiles are chosen for pods, and
	// then is not refused; "" if none is chosen.
	chosen string
}

var ours = `{type: Localhost, localhostProfile: ` + kube.DefaultProfile + `}`

// grantedFile holds the rule that the policy grants to one namespace.
var grantedFile = kube.GrantedProfile([]string{"digest"})

// strict is what Pod Security asks for besides a profile.
const strict = `allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1000, capabilities: {drop: [ALL]}`

var admissions = map[string]admitted{
	"nothing is set":        {"default", `{containers: [{name: c, image: i}]}`, "c (seccompProfile: none)", kube.DefaultProfile},
	"RuntimeDefault, pod":   {"default", `{securityContext: {seccompProfile: {type: RuntimeDefault}}, containers: [{name: c, image: i}]}`, "c (seccompProfile: RuntimeDefault)", kube.DefaultProfile},
	"RuntimeDefault, init":  {"default", `{initContainers: [{name: first, image: i, securityContext: {seccompProfile: {type: RuntimeDefault}}}], containers: [{name: c, image: i}]}`, "first (seccompProfile: RuntimeDefault)", kube.DefaultProfile},
	"Unconfined, pod":       {"default", `{securityContext: {seccompProfile: {type: Unconfined}}, containers: [{name: c, image: i}]}`, "c (seccompProfile: Unconfined)", ""},
	"Unconfined, container": {"default", `{securityContext: {seccompProfile: ` + ours + `}, containers: [{name: c, image: i, securityContext: {seccompProfile: {type: Unconfined}}}]}`, "c (seccompProfile: Unconfined)", ""},
	"Unconfined, init":      {"default", `{securityContext: {seccompProfile: ` + ours + `}, initContainers: [{name: first, image: i, securityContext: {seccompProfile: {type: Unconfined}}}], containers: [{name: c, image: i}]}`, "first (seccompProfile: Unconfined)", ""},
	"privileged":            {"default", `{securityContext: {seccompProfile: ` + ours + `}, containers: [{name: c, image: i, securityContext: {privileged: true}}]}`, "privileged, and so without a seccomp profile: c", ""},
	"our file":              {"default", `{securityContext: {seccompProfile: ` + ours + `}, containers: [{name: c, image: i}]}`, "", ""},
	"our file, each":        {"default", `{containers: [{name: c, image: i, securityContext: {seccompProfile: ` + ours + `}}]}`, "", ""},
	"a file of others":      {"default", `{securityContext: {seccompProfile: {type: Localhost, localhostProfile: other.json}}, containers: [{name: c, image: i}]}`, "c (seccompProfile: Localhost other.json)", ""},
	"granted":               {granting, `{securityContext: {seccompProfile: {type: Localhost, localhostProfile: ` + grantedFile + `}}, containers: [{name: c, image: i}]}`, "", ""},
	"granted to others":     {"default", `{securityContext: {seccompProfile: {type: Localhost, localhostProfile: ` + grantedFile + `}}, containers: [{name: c, image: i}]}`, "c (seccompProfile: Localhost " + grantedFile + ")", ""},
	"Windows":               {"default", `{os: {name: windows}, containers: [{name: c, image: i}]}`, "", ""},
	"exempt":                {exempted, `{containers: [{name: c, image: i, securityContext: {privileged: true}}]}`, "", ""},
	"restricted, granted":   {restricted, `{securityContext: {seccompProfile: {type: Localhost, localhostProfile: ` + grantedFile + `}}, containers: [{name: c, image: i, securityContext: {` + strict + `}}]}`, "c (seccompProfile: Localhost " + grantedFile + ")", ""},
	"restricted":            {restricted, `{securityContext: {seccompProfile: ` + ours + `}, containers: [{name: c, image: i, securityContext: {` + strict + `}}]}`, "", ""},
}

// generated has the output of generate kubernetes.
func (c *clusterTest) generate(t *testing.T, policy []byte, flags ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(dir+"/policy.yaml", policy, 0o600); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat([]string{installed, "generate", "kubernetes", dir + "/policy.yaml", "-o", "/srv/generated", "--accept", "admission"}, flags)
	c.WriteFile(t, dir+"/policy.yaml", policy, 0o644)
	c.Output(t, "rm", "-rf", "/srv/generated")
	c.Output(t, args...)
	return "/srv/generated"
}

// manifest reads files of the output.
func (c *clusterTest) manifest(t *testing.T, dir string, names ...string) []byte {
	t.Helper()
	var all []byte
	for _, name := range names {
		all = append(append(all, "---\n"...), c.ReadFile(t, filepath.Join(dir, name))...)
	}
	return all
}

// TestClusterAdmission takes the steps of the roll-out, and takes them back, on a
// real API server.
func TestClusterAdmission(t *testing.T) {
	c := &clusterTest{Cluster: cluster.StartAPI(t, "../..")}
	c.Output(t, "install", "-D", program(t), installed)
	c.Namespace(t, "default", nil)
	c.Namespace(t, granting, nil)
	c.Namespace(t, exempted, cluster.Object{kube.LabelExempt: "true"})
	c.Namespace(t, restricted, cluster.Object{"pod-security.kubernetes.io/enforce": "restricted"})
	dir := c.generate(t, clusterPolicy(t, "refuse"))
	audit := c.manifest(t, dir, "audit/policy.yaml", "audit/binding.yaml")
	deny := c.manifest(t, dir, "audit/policy.yaml", "deny/binding.yaml")
	mutate := c.manifest(t, dir, "mutate/policy.yaml", "mutate/binding.yaml")

	c.step(t, "without", c.admits(func(a admitted, got cluster.Answer) bool { return got.OK() && len(got.Warnings) == 0 }))
	c.Apply(t, audit)
	c.inForce(t, "warns", func(a cluster.Answer) bool { return a.OK() && len(a.Warnings) > 0 })
	c.step(t, "audit", c.admits(func(a admitted, got cluster.Answer) bool {
		return got.OK() && (a.denied == "") == (len(got.Warnings) == 0) && strings.Contains(strings.Join(got.Warnings, "\n"), a.denied)
	}))
	if log := c.Output(t, "cat", "/run/audit.json"); !strings.Contains(log, "validation.policy.admission.k8s.io/validation_failure") {
		t.Errorf("the audit log has no failure of ours: %.2000s", log)
	}
	c.Apply(t, deny)
	c.inForce(t, "refuses", func(a cluster.Answer) bool { return !a.OK() })
	c.step(t, "deny", c.admits(func(a admitted, got cluster.Answer) bool {
		return got.OK() == (a.denied == "") && strings.Contains(got.Message(), a.denied)
	}))
	c.step(t, "deny to debuggers", c.testEphemeral)
	c.Apply(t, mutate)
	c.inForce(t, "chooses", func(a cluster.Answer) bool { return a.OK() && chosen(t, a) != "" })
	c.step(t, "mutate and deny", c.admits(func(a admitted, got cluster.Answer) bool {
		if a.chosen != "" {
			return got.OK() && chosen(t, got) == a.chosen
		}
		return got.OK() == (a.denied == "") && strings.Contains(got.Message(), a.denied)
	}))
	c.Delete(t, slices.Concat(deny, mutate))
	c.inForce(t, "leaves alone", func(a cluster.Answer) bool { return a.OK() && len(a.Warnings) == 0 && chosen(t, a) == "" })
	c.step(t, "taken back", c.admits(func(a admitted, got cluster.Answer) bool { return got.OK() && len(got.Warnings) == 0 }))
}

// admits asks for every pod of the table.
func (c *clusterTest) admits(as func(admitted, cluster.Answer) bool) func(*testing.T) {
	return func(t *testing.T) {
		for name, a := range admissions {
			if got := c.ask(t, a); !as(a, got) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// ask has the API server admit a pod, and not make it.
func (c *clusterTest) ask(t *testing.T, a admitted) cluster.Answer {
	t.Helper()
	objects, err := cluster.Objects([]byte("{apiVersion: v1, kind: Pod, metadata: {name: asked, namespace: " + a.namespace + "}, spec: " + a.spec + "}"))
	if err != nil {
		t.Fatalf("%v in %s", err, a.spec)
	}
	return c.Create(t, objects[0], "?dryRun=All&fieldValidation=Strict")
}

// inForce waits for the API server: it compiles policies when it hears of them.
func (c *clusterTest) inForce(t *testing.T, what string, is func(cluster.Answer) bool) {
	t.Helper()
	c.Until(t, "the API server "+what, func() (bool, string) {
		a := c.ask(t, admissions["nothing is set"])
		return is(a), a.String()
	})
}

// chosen is the profile of a pod, if it is a file.
func chosen(t *testing.T, a cluster.Answer) string {
	var pod struct {
		Spec struct {
			SecurityContext struct {
				SeccompProfile struct{ LocalhostProfile string }
			}
		}
	}
	a.Into(t, &pod)
	return pod.Spec.SecurityContext.SeccompProfile.LocalhostProfile
}

// testEphemeral shows that a debugger is asked about as well, in a pod that no node
// has.
func (c *clusterTest) testEphemeral(t *testing.T) {
	p := cluster.Pod{Namespace: "default", Name: "debugged", Image: "i", Scheduled: true, Spec: cluster.Object{
		"schedulingGates": []any{cluster.Object{"name": "example.org/never"}},
		"securityContext": cluster.Object{"seccompProfile": cluster.Object{"type": "Localhost", "localhostProfile": kube.DefaultProfile}},
	}}
	if a := c.Create(t, p.Object(), ""); !a.OK() {
		t.Fatal(a)
	}
	defer c.RemovePod(t, p)
	for security, denied := range map[string]string{
		`{}`:                   "",
		`{"privileged": true}`: "privileged, and so without a seccomp profile: debugger",
		`{"seccompProfile":{"type":"Unconfined"}}`: "debugger (seccompProfile: Unconfined)",
	} {
		patch := `{"spec": {"ephemeralContainers": [{"name": "debugger", "image": "i", "securityContext": ` + security + `}]}}`
		a := c.Request(t, http.MethodPatch, "/api/v1/namespaces/default/pods/debugged/ephemeralcontainers?dryRun=All", "application/strategic-merge-patch+json", []byte(patch))
		if a.OK() != (denied == "") || !strings.Contains(a.Message(), denied) {
			t.Errorf("%s: %s", security, a)
		}
	}
}
