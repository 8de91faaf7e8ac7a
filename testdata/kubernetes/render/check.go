package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	admissionvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// finding is what Kubernetes says of one object.
type finding struct {
	Kind, Name string
	// Unknown says that Kubernetes itself does not know this kind.
	Unknown bool     `json:",omitempty"`
	Errors  []string `json:",omitempty"`
	// Level is the strictest of Pod Security's levels that admits the object's pods,
	// and Above what the next one would not have.
	Level string   `json:",omitempty"`
	Above []string `json:",omitempty"`
}

func check(in io.Reader, out io.Writer) error {
	// The API server is started with --allow-privileged wherever privileged pods run.
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	decode := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(in))
	found := []finding{}
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if strings.Trim(string(text), "-\n ") == "" {
			continue
		}
		f, err := checkObject(decode, text)
		if err != nil {
			return err
		}
		found = append(found, f)
	}
	return json.NewEncoder(out).Encode(found)
}

func checkObject(decode runtime.Decoder, text []byte) (finding, error) {
	var named struct {
		Kind     string
		Metadata struct{ Name string }
	}
	whole, err := utilyaml.ToJSON(text)
	if err == nil {
		err = json.Unmarshal(whole, &named)
	}
	if err != nil {
		return finding{}, err
	}
	f := finding{Kind: named.Kind, Name: named.Metadata.Name}
	object, _, err := decode.Decode(text, nil, nil)
	switch {
	case runtime.IsNotRegisteredError(err):
		f.Unknown = true
		return f, nil
	case err != nil:
		f.Errors = append(f.Errors, err.Error())
		return f, nil
	}
	if d, ok := object.(*appsv1.DaemonSet); ok {
		if err := f.podSecurity(d.Spec.Template); err != nil {
			return f, err
		}
	}
	errs, err := validate(object)
	for _, e := range errs {
		f.Errors = append(f.Errors, e.Error())
	}
	return f, err
}

// validate sets the defaults of an object and checks it, as the API server does.
func validate(object runtime.Object) (field.ErrorList, error) {
	legacyscheme.Scheme.Default(object)
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, schema.GroupVersion{Group: object.GetObjectKind().GroupVersionKind().Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return nil, err
	}
	switch o := internal.(type) {
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, corevalidation.PodValidationOptions{}), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o), nil
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o), nil
	case *core.Service:
		return nil, nil
	case *rbac.ClusterRole:
		return rbacvalidation.ValidateClusterRole(o, rbacvalidation.ClusterRoleValidationOptions{}), nil
	case *rbac.ClusterRoleBinding:
		return rbacvalidation.ValidateClusterRoleBinding(o), nil
	case *admissionregistration.ValidatingAdmissionPolicy:
		return admissionvalidation.ValidateValidatingAdmissionPolicy(o), nil
	case *admissionregistration.ValidatingAdmissionPolicyBinding:
		return admissionvalidation.ValidateValidatingAdmissionPolicyBinding(o), nil
	}
	return nil, fmt.Errorf("no validation for %T", internal)
}

// podSecurity asks Pod Security Admission which level admits the pods.
func (f *finding) podSecurity(t corev1.PodTemplateSpec) error {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	for _, level := range []api.Level{api.LevelRestricted, api.LevelBaseline, api.LevelPrivileged} {
		var denied []string
		for _, r := range e.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &t.ObjectMeta, &t.Spec) {
			if !r.Allowed {
				denied = append(denied, r.ForbiddenReason+": "+r.ForbiddenDetail)
			}
		}
		if denied == nil {
			f.Level = string(level)
			return nil
		}
		slices.Sort(denied)
		f.Above = denied
	}
	return fmt.Errorf("no level admits the pods")
}
