package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apicel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// question is a ValidatingAdmissionPolicy, and updates of nodes.
type question struct {
	Policy  string
	Updates []struct {
		User  string
		Extra map[string][]string
		// Old and New are nodes in JSON.
		Old, New json.RawMessage
	}
}

// admit answers with the messages of those who refuse, or "not matched".
func admit(in io.Reader, out io.Writer) error {
	var q question
	if err := json.NewDecoder(in).Decode(&q); err != nil {
		return err
	}
	var p admissionregistrationv1.ValidatingAdmissionPolicy
	if err := yaml.UnmarshalStrict([]byte(q.Policy), &p); err != nil {
		return err
	}
	matcher, validator, err := compile(&p)
	if err != nil {
		return err
	}
	answers := [][]string{}
	for _, u := range q.Updates {
		attributes, err := nodeUpdate(u.Old, u.New, &user.DefaultInfo{Name: u.User, Extra: u.Extra})
		if err != nil {
			return err
		}
		if m := matcher.Match(context.Background(), attributes, nil, nil); m.Error != nil {
			return m.Error
		} else if !m.Matches {
			answers = append(answers, []string{"not matched"})
			continue
		}
		said := []string{}
		r := validator.Validate(context.Background(), corev1.SchemeGroupVersion.WithResource("nodes"), attributes, nil, nil, apicel.RuntimeCELCostBudget, nil)
		for _, d := range r.Decisions {
			if d.Action != validating.ActionAdmit || d.Evaluation != validating.EvalAdmit {
				said = append(said, d.Message)
			}
		}
		answers = append(answers, said)
	}
	return json.NewEncoder(out).Encode(answers)
}

// compile is what the API server does with a policy when it is stored.
func compile(p *admissionregistrationv1.ValidatingAdmissionPolicy) (matchconditions.Matcher, validating.Validator, error) {
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, nil, err
	}
	declared := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	c.CompileAndStoreVariables(variables, declared, environment.StoredExpressions)
	var conditions, validations, messages []cel.ExpressionAccessor
	for i := range p.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i]))
	}
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	matcher := matchconditions.NewMatcher(c.CompileCondition(conditions, declared, environment.StoredExpressions), p.Spec.FailurePolicy, "policy", "validate", p.Name)
	return matcher, validating.NewValidator(
		c.CompileCondition(validations, declared, environment.StoredExpressions), matcher,
		c.CompileCondition(nil, declared, environment.StoredExpressions),
		c.CompileCondition(messages, cel.OptionalVariableDeclarations{}, environment.StoredExpressions),
		p.Spec.FailurePolicy, nil,
	), nil
}

func nodeUpdate(oldText, newText []byte, who user.Info) (*admission.VersionedAttributes, error) {
	var before, after corev1.Node
	for text, into := range map[*[]byte]*corev1.Node{&oldText: &before, &newText: &after} {
		if err := json.Unmarshal(*text, into); err != nil {
			return nil, fmt.Errorf("a node: %w", err)
		}
	}
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Node"}
	a := admission.NewAttributesRecord(&after, &before, kind, "", after.Name, corev1.SchemeGroupVersion.WithResource("nodes"), "", admission.Update, nil, false, who)
	return &admission.VersionedAttributes{Attributes: a, VersionedKind: kind, VersionedObject: admission.NewLazyObject(&after), VersionedOldObject: admission.NewLazyObject(&before)}, nil
}
