package main

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules"
	apicel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

var (
	podKind     = corev1.SchemeGroupVersion.WithKind("Pod")
	podResource = corev1.SchemeGroupVersion.WithResource("pods")
)

// cluster has at most one policy of a kind, with one binding.
type cluster struct {
	validate        *v1.ValidatingAdmissionPolicy
	validateBinding *v1.ValidatingAdmissionPolicyBinding
	mutate          *v1.MutatingAdmissionPolicy
	mutateBinding   *v1.MutatingAdmissionPolicyBinding

	validator validating.Validator
	mutator   *cel.CompositedCompiler
	matcher   matchconditions.Matcher
	patchers  []patch.Patcher
	scheme    *runtime.Scheme
	converter managedfields.TypeConverter
}

func newCluster() *cluster {
	c := &cluster{scheme: runtime.NewScheme(), converter: managedfields.NewDeducedTypeConverter()}
	if err := corev1.AddToScheme(c.scheme); err != nil {
		panic(err)
	}
	return c
}

// add decodes an object as strictly as the server does, and validates it. Other
// kinds are passed over.
func (c *cluster) add(text []byte) (problems []string, err error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	switch kind.Kind {
	case "ValidatingAdmissionPolicy":
		return decode(text, &c.validate)
	case "ValidatingAdmissionPolicyBinding":
		return decode(text, &c.validateBinding)
	case "MutatingAdmissionPolicy":
		return decode(text, &c.mutate)
	case "MutatingAdmissionPolicyBinding":
		return decode(text, &c.mutateBinding)
	}
	return nil, nil
}

func decode[T any, P interface {
	*T
	runtime.Object
}](text []byte, into *P) ([]string, error) {
	one := P(new(T))
	if err := yaml.UnmarshalStrict(text, one); err != nil {
		return nil, err
	}
	*into = one
	return validateObject(one), nil
}

var declarations = cel.OptionalVariableDeclarations{HasAuthorizer: true}

func (c *cluster) compile() error {
	if p := c.validate; p != nil {
		compiler, err := newCompiler(p.Spec.Variables)
		if err != nil {
			return err
		}
		var conditions, messages []cel.ExpressionAccessor
		for _, v := range p.Spec.Validations {
			conditions = append(conditions, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
			messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
		}
		of := func(all []cel.ExpressionAccessor, o cel.OptionalVariableDeclarations) cel.ConditionEvaluator {
			return compiler.CompileCondition(all, o, environment.StoredExpressions)
		}
		c.validator = validating.NewValidator(of(conditions, declarations), newMatcher(compiler, p.Spec.MatchConditions, p.Spec.FailurePolicy),
			of(nil, declarations), of(messages, cel.OptionalVariableDeclarations{}), p.Spec.FailurePolicy, nil)
	}
	if p := c.mutate; p != nil {
		var variables []v1.Variable
		for _, v := range p.Spec.Variables {
			variables = append(variables, v1.Variable(v))
		}
		var err error
		if c.mutator, err = newCompiler(variables); err != nil {
			return err
		}
		var conditions []v1.MatchCondition
		for _, m := range p.Spec.MatchConditions {
			conditions = append(conditions, v1.MatchCondition(m))
		}
		c.matcher = newMatcher(c.mutator, conditions, p.Spec.FailurePolicy)
		for _, m := range p.Spec.Mutations {
			c.patchers = append(c.patchers, newPatcher(c.mutator, m))
		}
	}
	return nil
}

func newCompiler(variables []v1.Variable) (*cel.CompositedCompiler, error) {
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	var all []cel.NamedExpressionAccessor
	for _, v := range variables {
		all = append(all, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(all, declarations, environment.StoredExpressions)
	return compiler, nil
}

func newMatcher(c *cel.CompositedCompiler, conditions []v1.MatchCondition, failure *v1.FailurePolicyType) matchconditions.Matcher {
	var all []cel.ExpressionAccessor
	for i := range conditions {
		all = append(all, (*matchconditions.MatchCondition)(&conditions[i]))
	}
	return matchconditions.NewMatcher(c.CompileCondition(all, declarations, environment.StoredExpressions), failure, "policy", "validate", "afalg-policy")
}

func newPatcher(c *cel.CompositedCompiler, m v1.Mutation) patch.Patcher {
	o := declarations
	o.HasPatchTypes = true
	if m.JSONPatch != nil {
		return patch.NewJSONPatcher(c.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, o, environment.StoredExpressions))
	}
	return patch.NewApplyConfigurationPatcher(c.CompileMutatingEvaluator(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, o, environment.StoredExpressions))
}

// decide mutates, then validates.
func (c *cluster) decide(r request) (verdict, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace, Labels: map[string]string{"kubernetes.io/metadata.name": r.Namespace}}}
	for k, v := range r.Labels {
		namespace.Labels[k] = v
	}
	attributes, err := r.attributes()
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	if c.mutate != nil && c.mutateBinding != nil && concerns(c.mutate.Spec.MatchConstraints.ResourceRules, attributes) && selects(c.mutateBinding.Spec.MatchResources, namespace) {
		if err := c.mutated(attributes, namespace); err != nil {
			return v, err
		}
	}
	if v.Pod, err = json.Marshal(attributes.VersionedObject.Object()); err != nil {
		return v, err
	}
	if c.validate != nil && c.validateBinding != nil && concerns(c.validate.Spec.MatchConstraints.ResourceRules, attributes) && selects(c.validateBinding.Spec.MatchResources, namespace) {
		c.validated(attributes, namespace, &v)
	}
	v.Invalid, v.Restricted, err = serverSays(v.Pod, r.Namespace)
	return v, err
}

func (r request) attributes() (*admission.VersionedAttributes, error) {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(r.Pod, pod); err != nil {
		return nil, err
	}
	var old runtime.Object
	if r.Old != nil {
		p := &corev1.Pod{}
		if err := json.Unmarshal(r.Old, p); err != nil {
			return nil, err
		}
		p.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		old = p
	}
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	who := &user.DefaultInfo{Name: "somebody", Groups: append([]string{"system:authenticated"}, r.Groups...)}
	v := &admission.VersionedAttributes{
		Attributes:      admission.NewAttributesRecord(pod, old, podKind, r.Namespace, pod.Name, podResource, r.Subresource, admission.Operation(r.Operation), nil, false, who),
		VersionedObject: admission.NewLazyObject(pod.DeepCopy()), VersionedKind: podKind,
	}
	if old != nil {
		v.VersionedOldObject = admission.NewLazyObject(old)
	}
	return v, nil
}

func concerns(all []v1.NamedRuleWithOperations, a admission.Attributes) bool {
	for _, r := range all {
		if (&rules.Matcher{Rule: r.RuleWithOperations, Attr: a}).Matches() {
			return true
		}
	}
	return false
}

func selects(m *v1.MatchResources, namespace *corev1.Namespace) bool {
	selector, err := metav1.LabelSelectorAsSelector(m.NamespaceSelector)
	return err == nil && selector.Matches(labels.Set(namespace.Labels))
}

func (c *cluster) mutated(a *admission.VersionedAttributes, namespace *corev1.Namespace) error {
	match := c.matcher.Match(context.Background(), a, nil, nil)
	if match.Error != nil {
		return match.Error
	}
	if !match.Matches {
		return nil
	}
	for i, p := range c.patchers {
		out, err := p.Patch(c.mutator.CreateContext(context.Background()), patch.Request{
			MatchedResource: podResource, VersionedAttributes: a, ObjectInterfaces: admission.NewObjectInterfacesFromScheme(c.scheme),
			Namespace: namespace, TypeConverter: c.converter,
		}, apicel.RuntimeCELCostBudget)
		if err != nil {
			return fmt.Errorf("mutation %d: %w", i, err)
		}
		a.VersionedObject = admission.NewLazyObject(out)
	}
	return nil
}

func (c *cluster) validated(a *admission.VersionedAttributes, namespace *corev1.Namespace, v *verdict) {
	result := c.validator.Validate(context.Background(), podResource, a, nil, namespace, apicel.RuntimeCELCostBudget, nil)
	for _, d := range result.Decisions {
		if d.Action == validating.ActionAdmit {
			continue
		}
		for _, action := range c.validateBinding.Spec.ValidationActions {
			switch action {
			case v1.Deny:
				v.Denied = append(v.Denied, d.Message)
			case v1.Warn:
				v.Warned = append(v.Warned, d.Message)
			case v1.Audit:
				v.Audited = append(v.Audited, d.Message)
			}
		}
	}
}
