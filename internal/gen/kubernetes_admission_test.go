package gen

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// The table of requests, and what becomes of each: with the validating policy
// alone, and with the mutating one before it. The control is the API server without
// either, which takes every pod here but those that say what it has against them.
const kubernetesTable = kubernetesRules + `
containers:
  grants:
    - {rules: [digest], namespaces: [crypto, shop]}
    - {rules: [vpn], namespaces: [crypto], pods: [gate], names: [ike]}
    - {rules: [keys], names: [keeper]}
`

const (
	admitted = true
	refused  = false
)

// podCase is one request. In a spec, DEFAULT is our profile, FILE(x) is the Localhost
// profile x below ours, and TYPE(x) a profile of that type.
type podCase struct {
	name      string
	namespace string // default without one
	pod       string // the pod in YAML; "spec" without metadata
	old       string // for an update of ephemeral containers
	groups    []string
	labels    map[string]string
	update    string // a subresource
	alone     bool
	mutated   bool
	invalid   string // what the API server has against it by itself
}

var podCases = []podCase{
	// What pods say, and what the kubelet makes of it.
	{name: "nothing said", pod: "containers: [{name: c}]", alone: refused, mutated: admitted},
	{name: "our profile", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]", alone: admitted, mutated: admitted},
	{name: "RuntimeDefault", pod: "securityContext: {seccompProfile: TYPE(RuntimeDefault)}\ncontainers: [{name: c}]", alone: refused, mutated: admitted},
	{name: "Unconfined", pod: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "a file of somebody else", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x.json}}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "container over pod: Unconfined", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {seccompProfile: TYPE(Unconfined)}}]", alone: refused, mutated: refused},
	{name: "container over pod: RuntimeDefault", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {seccompProfile: TYPE(RuntimeDefault)}}]", alone: refused, mutated: admitted},
	{name: "container over pod: ours over Unconfined", pod: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c, securityContext: {seccompProfile: DEFAULT}}]", alone: admitted, mutated: admitted},
	{name: "container over pod: RuntimeDefault over Unconfined", pod: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c, securityContext: {seccompProfile: TYPE(RuntimeDefault)}}]", alone: refused, mutated: admitted},
	{name: "only the container says it", pod: "containers: [{name: c, securityContext: {seccompProfile: DEFAULT}}]", alone: admitted, mutated: admitted},
	{name: "one of two containers says nothing", pod: "containers: [{name: c, securityContext: {seccompProfile: DEFAULT}}, {name: d}]", alone: refused, mutated: admitted},
	{name: "the last of three is Unconfined", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}, {name: d}, {name: e, securityContext: {seccompProfile: TYPE(Unconfined)}}]", alone: refused, mutated: refused},
	{name: "a security context without a profile", pod: "securityContext: {runAsNonRoot: true}\ncontainers: [{name: c, securityContext: {runAsNonRoot: true}}]", alone: refused, mutated: admitted},
	{name: "privileged", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {privileged: true}}]", alone: refused, mutated: refused},
	{name: "privileged: false", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {privileged: false}}]", alone: admitted, mutated: admitted},
	{name: "privileged with its own profile", pod: "containers: [{name: c, securityContext: {privileged: true, seccompProfile: DEFAULT}}]", alone: refused, mutated: refused},

	// Init containers.
	{name: "init: nothing said", pod: "containers: [{name: c, securityContext: {seccompProfile: DEFAULT}}]\ninitContainers: [{name: i}]", alone: refused, mutated: admitted},
	{name: "init: Unconfined", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\ninitContainers: [{name: i, securityContext: {seccompProfile: TYPE(Unconfined)}}]", alone: refused, mutated: refused},
	{name: "init: RuntimeDefault", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\ninitContainers: [{name: i, securityContext: {seccompProfile: TYPE(RuntimeDefault)}}]", alone: refused, mutated: admitted},
	{name: "init: privileged", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\ninitContainers: [{name: i, securityContext: {privileged: true}}]", alone: refused, mutated: refused},
	{name: "sidecar: privileged", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\ninitContainers: [{name: i, restartPolicy: Always, securityContext: {privileged: true}}]", alone: refused, mutated: refused},

	// Files with grants.
	{name: "granted in its namespace", namespace: "crypto", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c}]", alone: admitted, mutated: admitted},
	{name: "granted in its other namespace", namespace: "shop", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c}]", alone: admitted, mutated: admitted},
	{name: "attack: the file of another namespace", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: of a namespace with a like name", namespace: "crypto2", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: at the container, under our default", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c, securityContext: {seccompProfile: FILE(granted/digest.json)}}]", alone: refused, mutated: refused},
	{name: "attack: at an init container", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\ninitContainers: [{name: i, securityContext: {seccompProfile: FILE(granted/digest.json)}}]", alone: refused, mutated: refused},
	{name: "attack: metadata says another namespace", pod: "metadata: {name: p, namespace: crypto}\nspec: {securityContext: {seccompProfile: FILE(granted/digest.json)}, containers: [{name: c}]}", alone: refused, mutated: refused},
	{name: "granted to a container of a pod", namespace: "crypto", pod: "metadata: {name: gate}\nspec: {containers: [{name: ike, securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}}]}", alone: admitted, mutated: admitted},
	{name: "attack: another pod", namespace: "crypto", pod: "metadata: {name: gates}\nspec: {containers: [{name: ike, securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}}]}", alone: refused, mutated: refused},
	{name: "attack: another container of the pod", namespace: "crypto", pod: "metadata: {name: gate}\nspec: {securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}, containers: [{name: ike}, {name: c}]}", alone: refused, mutated: refused},
	{name: "attack: the pod's name in another namespace", namespace: "shop", pod: "metadata: {name: gate}\nspec: {containers: [{name: ike, securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}}]}", alone: refused, mutated: refused},
	{name: "attack: a name that is to be made up", namespace: "crypto", pod: "metadata: {generateName: gate}\nspec: {containers: [{name: ike, securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}}]}", alone: refused, mutated: refused},
	{name: "generateName with a grant of the namespace", namespace: "crypto", pod: "metadata: {generateName: web-}\nspec: {securityContext: {seccompProfile: FILE(granted/digest.json)}, containers: [{name: c}]}", alone: admitted, mutated: admitted},
	{name: "less than it holds", namespace: "crypto", pod: "metadata: {name: gate}\nspec: {containers: [{name: ike, securityContext: {seccompProfile: FILE(granted/digest.json)}}]}", alone: admitted, mutated: admitted},
	{name: "granted by the name of a container", pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: keeper, securityContext: {seccompProfile: FILE(granted/keys.json)}}]", alone: admitted, mutated: admitted},
	{name: "two grants together", namespace: "shop", pod: "containers: [{name: keeper, securityContext: {seccompProfile: FILE(granted/digest.keys.json)}}]", alone: admitted, mutated: admitted},
	{name: "attack: half of two grants", pod: "containers: [{name: keeper, securityContext: {seccompProfile: FILE(granted/digest.keys.json)}}]", alone: refused, mutated: refused},
	{name: "attack: granted and privileged", namespace: "crypto", pod: "securityContext: {seccompProfile: FILE(granted/digest.json)}\ncontainers: [{name: c, securityContext: {privileged: true}}]", alone: refused, mutated: refused},

	// Names that the kubelet joins to the same file, or to another.
	{name: "attack: ..", pod: "securityContext: {seccompProfile: FILE(../afalg-policy/granted/digest.json)}\ncontainers: [{name: c}]", invalid: "localhostProfile", alone: refused, mutated: refused},
	{name: "attack: ./", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ./afalg-policy/granted/digest.json}}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: //", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: afalg-policy//granted/digest.json}}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: a trailing slash", pod: "securityContext: {seccompProfile: FILE(granted/digest.json/)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: a dot inside", pod: "securityContext: {seccompProfile: FILE(granted/./digest.json)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: the spelling, where it is granted", namespace: "crypto", pod: "securityContext: {seccompProfile: FILE(granted//digest.json)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: an absolute path", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: /afalg-policy/default.json}}\ncontainers: [{name: c}]", invalid: "localhostProfile", alone: refused, mutated: refused},
	{name: "attack: an unknown file of ours", pod: "securityContext: {seccompProfile: FILE(granted/all.json)}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: an empty name", pod: "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ''}}\ncontainers: [{name: c}]", alone: refused, mutated: refused},
	{name: "attack: no name", pod: "securityContext: {seccompProfile: {type: Localhost}}\ncontainers: [{name: c}]", invalid: "localhostProfile", alone: refused, mutated: refused},
	{name: "attack: our name beside another type", pod: "securityContext: {seccompProfile: {type: Unconfined, localhostProfile: afalg-policy/default.json}}\ncontainers: [{name: c}]", invalid: "localhostProfile", alone: refused, mutated: refused},
	{name: "the type of 1.38", pod: "securityContext: {seccompProfile: {type: OCI, oci: {ref: \"r.example/p@sha256:0\"}}}\ncontainers: [{name: c}]", invalid: "OCI", alone: refused, mutated: refused},
	{name: "attack: a type that is none", pod: "securityContext: {seccompProfile: TYPE(localhost)}\ncontainers: [{name: c}]", invalid: "localhost", alone: refused, mutated: refused},
	{name: "attack: an annotation of old", pod: "metadata: {name: p, annotations: {seccomp.security.alpha.kubernetes.io/pod: localhost/afalg-policy/default.json}}\nspec: {containers: [{name: c}]}", alone: refused, mutated: admitted},

	// Who asks, where, and for what.
	{name: "a pod for Windows", pod: "os: {name: windows}\ncontainers: [{name: c}]", alone: admitted, mutated: admitted},
	{name: "attack: Windows, and what Windows has not", pod: "os: {name: windows}\ncontainers: [{name: c, securityContext: {privileged: true, seccompProfile: TYPE(Unconfined)}}]", invalid: "privileged", alone: admitted, mutated: admitted},
	{name: "a pod that says Linux", pod: "os: {name: linux}\ncontainers: [{name: c}]", alone: refused, mutated: admitted},
	{name: "a mirror pod, by a node", pod: "metadata: {name: p, annotations: {kubernetes.io/config.mirror: x}}\nspec: {nodeName: n, containers: [{name: c}]}", groups: []string{"system:nodes"}, alone: admitted, mutated: admitted},
	{name: "attack: a pod by a node", pod: "containers: [{name: c, securityContext: {seccompProfile: TYPE(Unconfined)}}]", groups: []string{"system:nodes"}, alone: refused, mutated: refused},
	{name: "attack: a mirror pod by somebody", pod: "metadata: {name: p, annotations: {kubernetes.io/config.mirror: x}}\nspec: {nodeName: n, containers: [{name: c, securityContext: {seccompProfile: TYPE(Unconfined)}}]}", alone: refused, mutated: refused},
	{name: "kube-system", namespace: "kube-system", pod: "containers: [{name: c, securityContext: {privileged: true}}]", alone: admitted, mutated: admitted},
	{name: "a namespace with the label", pod: "containers: [{name: c, securityContext: {privileged: true}}]", labels: map[string]string{"afalg-policy.io/exempt": ""}, alone: admitted, mutated: admitted},
	{name: "attack: a pod with the label", pod: "metadata: {name: p, labels: {afalg-policy.io/exempt: \"\"}}\nspec: {containers: [{name: c, securityContext: {privileged: true}}]}", alone: refused, mutated: refused},
	{name: "attack: hostUsers, and all the rest", pod: "hostPID: true\nhostNetwork: true\ncontainers: [{name: c, securityContext: {seccompProfile: TYPE(Unconfined)}}]", alone: refused, mutated: refused},

	// Debugging containers.
	{name: "debug: inherits ours", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d}]", alone: admitted, mutated: admitted},
	{name: "debug: in an old pod, with nothing", update: "ephemeralcontainers", old: "containers: [{name: c}]",
		pod: "containers: [{name: c}]\nephemeralContainers: [{name: d}]", alone: refused, mutated: admitted},
	{name: "debug: in an old pod, with ours", update: "ephemeralcontainers", old: "containers: [{name: c}]",
		pod: "containers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {seccompProfile: DEFAULT}}]", alone: admitted, mutated: admitted},
	{name: "debug: in an old pod that is Unconfined", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: TYPE(Unconfined)}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d}]", alone: refused, mutated: refused},
	{name: "debug: RuntimeDefault, as kubectl's profile restricted", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {seccompProfile: TYPE(RuntimeDefault)}}]", alone: refused, mutated: admitted},
	{name: "debug: privileged, as kubectl's profile sysadmin", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {privileged: true}}]", alone: refused, mutated: refused},
	{name: "debug: Unconfined", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {seccompProfile: TYPE(Unconfined)}}]", alone: refused, mutated: refused},
	{name: "debug: beside one that was there", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {privileged: true}}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {privileged: true}}, {name: e}]", alone: admitted, mutated: admitted},
	{name: "attack: debug, the file of another namespace", update: "ephemeralcontainers", old: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]",
		pod: "securityContext: {seccompProfile: DEFAULT}\ncontainers: [{name: c}]\nephemeralContainers: [{name: d, securityContext: {seccompProfile: FILE(granted/digest.json)}}]", alone: refused, mutated: refused},
	{name: "attack: debug, under the name that holds a grant", update: "ephemeralcontainers", namespace: "crypto", old: "metadata: {name: gate}\nspec: {securityContext: {seccompProfile: DEFAULT}, containers: [{name: ike}]}",
		pod: "metadata: {name: gate}\nspec: {securityContext: {seccompProfile: DEFAULT}, containers: [{name: ike}], ephemeralContainers: [{name: ike2, securityContext: {seccompProfile: FILE(granted/digest.vpn.json)}}]}", alone: refused, mutated: refused},
	{name: "status of an old pod", update: "status", old: "containers: [{name: c}]", pod: "containers: [{name: c}]", alone: admitted, mutated: admitted},
}

func TestKubernetesAdmission(t *testing.T) {
	p := kubernetesPlan(t, kubernetesTable)
	begun := time.Now()
	none := askServer(t, nil, podCases)
	alone := askServer(t, admissionObjects(t, p, "audit/policy.yaml", "deny/binding.yaml"), podCases)
	both := askServer(t, admissionObjects(t, p, "audit/policy.yaml", "deny/binding.yaml", "mutate/policy.yaml", "mutate/binding.yaml"), podCases)
	t.Logf("%d requests, three times: %v", len(podCases), time.Since(begun).Round(time.Millisecond))
	for _, a := range []*serverAnswer{alone, both} {
		for _, problem := range a.Invalid {
			t.Errorf("the API server refuses the objects: %s", problem)
		}
	}
	for i, c := range podCases {
		t.Run(c.name, func(t *testing.T) {
			control := none.Case[i]
			if len(control.Denied) > 0 || (c.invalid == "") != (control.Invalid == "") || !strings.Contains(control.Invalid, c.invalid) {
				t.Errorf("without a policy: %v, %q", control.Denied, control.Invalid)
			}
			if got := len(alone.Case[i].Denied) == 0; got != c.alone {
				t.Errorf("validated alone: admitted %v, %v", got, alone.Case[i].Denied)
			}
			if got := len(both.Case[i].Denied) == 0; got != c.mutated {
				t.Errorf("mutated before: admitted %v, %v\n%s", got, both.Case[i].Denied, both.Case[i].Pod)
			}
			if both.Case[i].Invalid != control.Invalid {
				t.Errorf("mutated, it is invalid: %s", both.Case[i].Invalid)
			}
		})
	}
}

// In the first step nothing is refused, and everything said.
func TestKubernetesAudit(t *testing.T) {
	p := kubernetesPlan(t, kubernetesTable)
	deny := askServer(t, admissionObjects(t, p, "audit/policy.yaml", "deny/binding.yaml"), podCases)
	audit := askServer(t, admissionObjects(t, p, "audit/policy.yaml", "audit/binding.yaml"), podCases)
	for i, c := range podCases {
		v := audit.Case[i]
		if len(v.Denied) > 0 || len(v.Warned) != len(deny.Case[i].Denied) || len(v.Audited) != len(v.Warned) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// Pod Security at its strictest takes the file of another, which is why admission
// has to tie each to those who hold its rules.
func TestAttackRestrictedPodNamesAnothersFile(t *testing.T) {
	restricted := "securityContext: {runAsNonRoot: true, seccompProfile: FILE(granted/digest.json)}\n" +
		"containers: [{name: c, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]"
	cases := []podCase{{pod: restricted}, {pod: strings.ReplaceAll(restricted, "FILE(granted/digest.json)", "TYPE(Unconfined)")}}
	a := askServer(t, admissionObjects(t, kubernetesPlan(t, kubernetesTable), "audit/policy.yaml", "deny/binding.yaml"), cases)
	if a.Case[0].Restricted != "" || a.Case[1].Restricted == "" {
		t.Errorf("Pod Security: %q, %q", a.Case[0].Restricted, a.Case[1].Restricted)
	}
	if len(a.Case[0].Denied) == 0 {
		t.Error("admitted")
	}
}

// admissionObjects are the texts of the named files, of an output without profiles.
func admissionObjects(t *testing.T, p *plan.Plan, names ...string) []string {
	return objectsOf(t, p, KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Tool: "test"}}}, names...)
}

func objectsOf(t *testing.T, p *plan.Plan, o KubernetesOptions, names ...string) (texts []string) {
	t.Helper()
	grants, _, err := kubernetesGrants(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := kubernetesSets(grants)
	if err != nil {
		t.Fatal(err)
	}
	a := admission{options: o, plan: p, grants: grants, sets: sets}
	files, err := a.render(nil)
	if err != nil {
		t.Fatal(err)
	}
	made := fileMap(files)
	for _, name := range names {
		if made[name] == "" {
			t.Fatalf("there is no %s", name)
		}
		texts = append(texts, made[name])
	}
	return texts
}

// serverAnswer is what the program in testdata/kubernetes/admission says.
type serverAnswer struct {
	Invalid []string
	Case    []struct {
		Pod                     json.RawMessage
		Denied, Warned, Audited []string
		Invalid, Restricted     string
	}
}

type serverRequest struct {
	Pod         json.RawMessage   `json:"pod"`
	Old         json.RawMessage   `json:"old,omitempty"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Groups      []string          `json:"groups,omitempty"`
	Operation   string            `json:"operation"`
	Subresource string            `json:"subresource,omitempty"`
}

func (c podCase) request(t *testing.T) serverRequest {
	r := serverRequest{Pod: podJSON(t, c.pod), Namespace: c.namespace, Labels: c.labels, Groups: c.groups, Operation: "CREATE", Subresource: c.update}
	if r.Namespace == "" {
		r.Namespace = "default"
	}
	if c.update != "" {
		r.Operation, r.Old = "UPDATE", podJSON(t, c.old)
	}
	return r
}

var podWords = strings.NewReplacer("DEFAULT", "{type: Localhost, localhostProfile: afalg-policy/default.json}",
	"FILE(", "{type: Localhost, localhostProfile: afalg-policy/", "TYPE(", "{type: ", ")", "}")

// podJSON completes what a case says.
func podJSON(t *testing.T, text string) json.RawMessage {
	t.Helper()
	text = podWords.Replace(text)
	if !strings.HasPrefix(text, "metadata:") {
		text = "metadata: {name: p}\nspec:\n  " + strings.ReplaceAll(text, "\n", "\n  ")
	}
	var pod map[string]any
	if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	spec := pod["spec"].(map[string]any)
	for _, list := range containerLists {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			c.(map[string]any)["image"] = "x"
		}
	}
	out, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func askServer(t *testing.T, objects []string, cases []podCase) *serverAnswer {
	t.Helper()
	var requests []serverRequest
	for _, c := range cases {
		requests = append(requests, c.request(t))
	}
	return askServerRaw(t, objects, requests)
}

func askServerRaw(t *testing.T, objects []string, requests []serverRequest) *serverAnswer {
	t.Helper()
	question, err := json.Marshal(map[string]any{"objects": objects, "cases": requests})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(clusterProgram(t, "admission"))
	cmd.Stdin = bytes.NewReader(question)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	var a serverAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatal(err)
	}
	return &a
}
