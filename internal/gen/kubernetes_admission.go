package gen

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// admission is what the API server is told about pods.
type admission struct {
	options KubernetesOptions
	plan    *plan.Plan
	grants  []kubeGrant
	sets    []kubernetesSet
}

// The types have what the output uses of admissionregistration.k8s.io/v1.
type (
	admissionObject struct {
		APIVersion string     `yaml:"apiVersion"`
		Kind       string     `yaml:"kind"`
		Metadata   objectMeta `yaml:"metadata"`
		Spec       any        `yaml:"spec"`
	}
	admissionSpec struct {
		FailurePolicy      string            `yaml:"failurePolicy"`
		ReinvocationPolicy string            `yaml:"reinvocationPolicy,omitempty"`
		MatchConstraints   matchResources    `yaml:"matchConstraints"`
		MatchConditions    []namedExpression `yaml:"matchConditions"`
		Variables          []namedExpression `yaml:"variables"`
		Validations        []validation      `yaml:"validations,omitempty"`
		Mutations          []mutation        `yaml:"mutations,omitempty"`
	}
	namedExpression struct {
		Name       string `yaml:"name"`
		Expression string `yaml:"expression"`
	}
	// validation has a message for where the server cannot make its own: that
	// of many containers is too long for it.
	validation struct {
		Expression        string `yaml:"expression"`
		Message           string `yaml:"message"`
		MessageExpression string `yaml:"messageExpression"`
		Reason            string `yaml:"reason"`
	}
	mutation struct {
		PatchType          string      `yaml:"patchType"`
		ApplyConfiguration *expression `yaml:"applyConfiguration,omitempty"`
		JSONPatch          *expression `yaml:"jsonPatch,omitempty"`
	}
	expression struct {
		Expression string `yaml:"expression"`
	}
	bindingSpec struct {
		PolicyName        string         `yaml:"policyName"`
		ValidationActions []string       `yaml:"validationActions,omitempty"`
		MatchResources    matchResources `yaml:"matchResources"`
	}
	matchResources struct {
		NamespaceSelector *labelSelector `yaml:"namespaceSelector,omitempty"`
		ResourceRules     []resourceRule `yaml:"resourceRules,omitempty"`
	}
	labelSelector struct {
		MatchExpressions []labelRequirement `yaml:"matchExpressions"`
	}
	labelRequirement struct {
		Key      string   `yaml:"key"`
		Operator string   `yaml:"operator"`
		Values   []string `yaml:"values,omitempty"`
	}
	resourceRule struct {
		APIGroups   []string `yaml:"apiGroups,flow"`
		APIVersions []string `yaml:"apiVersions,flow"`
		Operations  []string `yaml:"operations,flow"`
		Resources   []string `yaml:"resources,flow"`
		Scope       string   `yaml:"scope"`
	}
	kustomization struct {
		APIVersion string          `yaml:"apiVersion"`
		Kind       string          `yaml:"kind"`
		Resources  []string        `yaml:"resources"`
		Patches    []kustomizePath `yaml:"patches,omitempty"`
	}
	kustomizePath struct {
		Path string `yaml:"path"`
	}
)

const (
	admissionAPI  = "admissionregistration.k8s.io/v1"
	admissionName = "afalg-policy"
)

// document is one file of the output.
type document struct {
	path   string
	object any
	notes  []string
	gaps   bool // say them here
}

// render writes the objects of the three steps.
func (a *admission) render(gaps []plan.Gap) ([]File, error) {
	documents := []document{
		{"audit/policy.yaml", a.validatingPolicy(), []string{"The API server refuses pods that AF_ALG is open to, or says so, as the binding beside it asks. For Kubernetes 1.30 and later."}, true},
		{"audit/binding.yaml", a.validatingBinding("Audit", "Warn"), []string{"First step: nothing is refused. Warnings go to whoever makes a pod, and to the audit log as validation.policy.admission.k8s.io/validation_failure."}, false},
		{"audit/kustomization.yaml", resources("policy.yaml", "binding.yaml"), nil, false},
		{"mutate/policy.yaml", a.mutatingPolicy(), []string{"Second step: pods that choose no profile, or RuntimeDefault, get one. For Kubernetes 1.36 and later; before, let the templates of pods name the profile."}, false},
		{"mutate/binding.yaml", object("MutatingAdmissionPolicyBinding", bindingSpec{PolicyName: admissionName, MatchResources: a.namespaces()}), nil, false},
		{"mutate/kustomization.yaml", resources("policy.yaml", "binding.yaml"), nil, false},
		{"deny/binding.yaml", a.validatingBinding("Deny", "Audit"), []string{"Last step: it takes the place of audit/binding.yaml, which brings the first step back."}, false},
		{"deny/kustomization.yaml", denyOverlay(), nil, false},
	}
	var files []File
	for _, d := range documents {
		file, err := a.file(d, gaps)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func (a *admission) file(d document, gaps []plan.Gap) (File, error) {
	text, err := yaml.Dump(d.object)
	if err != nil {
		return File{}, fmt.Errorf("writing %s: %w", d.path, err)
	}
	if !d.gaps {
		gaps = nil
	} else {
		d.notes = append(d.notes, breakNotes(a.plan)...)
	}
	return File{d.path, fmt.Appendf(nil, "%s%s\n", a.options.Header(a.plan, d.notes, gaps), bytes.TrimSuffix(text, []byte("\n")))}, nil
}

func object(kind string, spec any) admissionObject {
	return admissionObject{APIVersion: admissionAPI, Kind: kind, Metadata: objectMeta{admissionName}, Spec: spec}
}

func resources(paths ...string) kustomization {
	return kustomization{APIVersion: "kustomize.config.k8s.io/v1beta1", Kind: "Kustomization", Resources: paths}
}

func denyOverlay() kustomization {
	k := resources("../audit")
	k.Patches = []kustomizePath{{"binding.yaml"}}
	return k
}

func (a *admission) validatingBinding(actions ...string) admissionObject {
	return object("ValidatingAdmissionPolicyBinding", bindingSpec{admissionName, actions, a.namespaces()})
}

// namespaces are those that the policies are for.
func (a *admission) namespaces() matchResources {
	return matchResources{NamespaceSelector: &labelSelector{[]labelRequirement{
		{"kubernetes.io/metadata.name", "NotIn", []string{"kube-system", kube.Namespace}},
		{kube.LabelExempt, "DoesNotExist", nil},
	}}}
}

// pods are the requests that bring containers. An update of a pod changes no
// profile, and would only hold up those that are there already.
func pods() matchResources {
	of := func(operation, resource string) resourceRule {
		return resourceRule{[]string{""}, []string{"v1"}, []string{operation}, []string{resource}, "Namespaced"}
	}
	return matchResources{ResourceRules: []resourceRule{of("CREATE", "pods"), of("UPDATE", "pods/ephemeralcontainers")}}
}

// conditions leave out pods that no container of Linux comes of: a kubelet refuses a pod for
// another system than its own, and runs none that is the mirror of a static pod. The mark
// of a mirror counts from nodes alone.
func conditions() []namedExpression {
	return []namedExpression{
		{"not-windows", "object.spec.?os.?name.orValue('linux') != 'windows'"},
		{"not-a-mirror", "!('system:nodes' in request.userInfo.groups && 'kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))"},
	}
}

// lists are the containers that a request brings. What is in a pod already is
// not asked about again.
func lists() []namedExpression {
	return []namedExpression{
		{"debug", "request.?subResource.orValue('') == 'ephemeralcontainers'"},
		{"pod", "object.spec.?securityContext.?seccompProfile"},
		{"containers", "variables.debug ? [] : object.spec.containers"},
		{"initContainers", "variables.debug ? [] : object.spec.?initContainers.orValue([])"},
		{"ephemeralContainers", "object.spec.?ephemeralContainers.orValue([])" +
			".filter(c, !variables.debug || !oldObject.spec.?ephemeralContainers.orValue([]).exists(o, o.name == c.name))"},
	}
}

var containerLists = []string{"containers", "initContainers", "ephemeralContainers"}

// overLists joins what an expression yields of each list. They are of different
// types.
func overLists(format string) string {
	var parts []string
	for _, list := range containerLists {
		parts = append(parts, strings.ReplaceAll(format, "LIST", "variables."+list))
	}
	return strings.Join(parts, "\n+ ")
}

func (a *admission) validatingPolicy() admissionObject {
	variables := append([]namedExpression{{"default", quoted(a.defaultProfile())}}, lists()...)
	variables = append(variables, a.granting()...)
	variables = append(variables,
		namedExpression{"privileged", overLists("LIST.filter(c, c.?securityContext.?privileged.orValue(false)).map(c, c.name)")},
		// The container's own profile counts, else the pod's, as the kubelet has it.
		namedExpression{"profiles", overLists("LIST.map(c, [c.name,\n    c.?securityContext.?seccompProfile.or(variables.pod).?type.orValue('none'),\n    c.?securityContext.?seccompProfile.or(variables.pod).?localhostProfile.orValue(''),\n    c.?securityContext.?seccompProfile.or(variables.pod).?oci.?ref.orValue('')])")},
		namedExpression{"open", "variables.profiles.filter(p, !(" + strings.Join(a.admitted(), "\n  || ") + "))"},
	)
	spec := admissionSpec{
		FailurePolicy: "Fail", MatchConstraints: pods(), MatchConditions: conditions(), Variables: variables,
		Validations: []validation{{
			"variables.open.size() == 0",
			"AF_ALG is not closed to a container of the pod: its seccompProfile is none that closes it, or one that is granted to others",
			"'AF_ALG is not closed to ' + variables.open.map(p, p[0] + ' (seccompProfile: ' + p[1] + (p[2] == '' ? '' : ' ' + p[2]) + ')').join(', ') + '; a container of this namespace may have Localhost ' + variables.default" + a.remedy(),
			"Forbidden",
		}},
	}
	if !a.admitsUnconfined() {
		spec.Validations = append(spec.Validations, validation{
			"variables.privileged.size() == 0",
			"a container of the pod is privileged, and so without a seccomp profile",
			"'privileged, and so without a seccomp profile: ' + variables.privileged.join(', ')",
			"Forbidden",
		})
	}
	return object("ValidatingAdmissionPolicy", spec)
}

func (a *admission) remedy() string {
	if len(a.sets) == 0 {
		return ""
	}
	return " + ', or what the policy grants it'"
}

// granting are the variables that say who may name a file with grants.
func (a *admission) granting() []namedExpression {
	if len(a.sets) == 0 {
		return nil
	}
	var files, grants []string
	for _, s := range a.sets {
		files = append(files, quoted(s.file())+": "+quotedList(s.rules))
	}
	for _, g := range a.grants {
		grants = append(grants, fmt.Sprintf("{'rules': %s, 'namespaces': %s, 'pods': %s, 'names': %s}",
			quotedList(g.rules), quotedList(g.namespaces), quotedList(g.pods), quotedList(g.names)))
	}
	return []namedExpression{
		{"granted", "{" + strings.Join(files, ",\n ") + "}"},
		{"grants", "[" + strings.Join(grants, ",\n ") + "]"},
		// The server has made a name up by now, where the pod leaves that to it.
		{"held", "variables.grants.filter(g, (g.namespaces.size() == 0 || request.namespace in g.namespaces)\n  && (g.pods.size() == 0 || object.metadata.?name.orValue('') in g.pods))"},
	}
}

// admitted are the profiles p of a container, [name, type, file, artifact], that are taken.
// What is not listed is refused: types that are still to come, and files under
// another spelling.
func (a *admission) admitted() []string {
	all := []string{"p[1] == 'Localhost' && p[2] == variables.default"}
	if len(a.sets) > 0 {
		all = append(all, "p[1] == 'Localhost' && p[2] in variables.granted && variables.granted[p[2]].all(r,\n"+
			"    variables.held.exists(g, r in g.rules && (g.names.size() == 0 || p[0] in g.names)))")
	}
	if a.options.Artifact != "" {
		all = append(all, "p[1] == 'OCI' && p[3] == "+quoted(a.options.Artifact)) // merged with any base, it closes the same
	}
	if a.accepts(gapLocalhost) {
		all = append(all, "p[1] == 'Localhost' && !p[2].contains("+quoted(kube.ProfileDir)+")")
	}
	if a.accepts(gapRuntimeDefault) {
		all = append(all, "p[1] == 'RuntimeDefault'")
	}
	if a.admitsUnconfined() {
		// The runtime gives a privileged container none, whatever the pod says.
		all = append(all, "p[1] == 'Unconfined'", "p[0] in variables.privileged")
		if a.accepts(gapRuntimeDefault) {
			all = append(all, "p[1] == 'none'") // the kubelet takes one of the two
		}
	}
	return all
}

// defaultProfile is the file of containers that hold nothing.
func (a *admission) defaultProfile() string {
	if a.options.Carrier == CarrierOperator {
		return kube.OperatorProfile(operatorObject)
	}
	return kube.DefaultProfile
}

// quoted is a text of CEL. Names in policies have no character that ends it.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`).Replace(s) + "'"
}

func quotedList(list []string) string {
	var all []string
	for _, s := range slices.Sorted(slices.Values(list)) {
		all = append(all, quoted(s))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
