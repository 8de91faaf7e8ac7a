package main

import (
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	admissionvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/capabilities"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// A server is told so by --allow-privileged, which every cluster has.
func init() { capabilities.Setup(true, 0) }

// validateObject is what the server finds wrong with a policy or a binding.
func validateObject(o runtime.Object) []string {
	legacyscheme.Scheme.Default(o)
	var found field.ErrorList
	switch o := o.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		var in admissionregistration.ValidatingAdmissionPolicy
		found = convert(o, &in, func() field.ErrorList { return admissionvalidation.ValidateValidatingAdmissionPolicy(&in) })
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		var in admissionregistration.ValidatingAdmissionPolicyBinding
		found = convert(o, &in, func() field.ErrorList { return admissionvalidation.ValidateValidatingAdmissionPolicyBinding(&in) })
	case *admissionv1.MutatingAdmissionPolicy:
		var in admissionregistration.MutatingAdmissionPolicy
		found = convert(o, &in, func() field.ErrorList { return admissionvalidation.ValidateMutatingAdmissionPolicy(&in) })
	case *admissionv1.MutatingAdmissionPolicyBinding:
		var in admissionregistration.MutatingAdmissionPolicyBinding
		found = convert(o, &in, func() field.ErrorList { return admissionvalidation.ValidateMutatingAdmissionPolicyBinding(&in) })
	}
	var problems []string
	for _, e := range found {
		problems = append(problems, e.Error())
	}
	return problems
}

func convert(from, into any, validate func() field.ErrorList) field.ErrorList {
	if err := legacyscheme.Scheme.Convert(from, into, nil); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validate()
}

var restricted = func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	return e
}()

// serverSays is what the server has against a pod without any admission policy,
// and what Pod Security has.
func serverSays(text []byte, namespace string) (invalid, unrestricted string, err error) {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(text, pod); err != nil {
		return "", "", err
	}
	pod.Namespace = namespace
	if pod.Name == "" {
		pod.Name = pod.GenerateName + "made"
	}
	legacyscheme.Scheme.Default(pod)
	result := policy.AggregateCheckResults(restricted.EvaluatePod(
		podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if !result.Allowed {
		unrestricted = result.ForbiddenDetail()
	}
	var in core.Pod
	if err := legacyscheme.Scheme.Convert(pod, &in, nil); err != nil {
		return "", "", err
	}
	in.UID, in.CreationTimestamp = "uid", metav1.Now()
	debug := in.Spec.EphemeralContainers
	in.Spec.EphemeralContainers = nil
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&in.Spec, nil, &in.ObjectMeta, nil)
	found := corevalidation.ValidatePodCreate(&in, options)
	in.Spec.EphemeralContainers = debug
	if len(found) > 0 {
		invalid = fmt.Sprint(found.ToAggregate())
	}
	return invalid, unrestricted, nil
}
