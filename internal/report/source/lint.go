package source

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// The IDs of findings in manifests.
const (
	ruleAnnotation = "seccomp-annotation"
	ruleBinding    = "profile-binding"
)

// Checks lists the findings in manifests, by ID.
func Checks() []verify.Check {
	return []verify.Check{
		{ID: ruleBinding, Level: verify.Warning, Title: "A ProfileBinding closes nothing by itself",
			Why: "The operator's webhook gives the profile to new containers of that image, in namespaces that have its label. A container whose profile is missing is let through without one, and ephemeral containers are not bound."},
		{ID: ruleAnnotation, Level: verify.Warning, Title: "An annotation names a seccomp profile, and does nothing",
			Why: "Kubernetes heeded these annotations up to 1.26. Since 1.27 the fields of the securityContext count alone."},
	}
}

// lintManifest finds what is easy to miss in a manifest.
func lintManifest(m *kube.Manifest) (all []verify.Finding) {
	type at struct{ line, column int }
	seen := map[at]bool{}
	for _, w := range m.Workloads {
		for _, c := range w.Containers {
			a := c.Annotation
			if a == nil || seen[at{a.Line, a.Column}] {
				continue
			}
			seen[at{a.Line, a.Column}] = true
			all = append(all, verify.Finding{Rule: ruleAnnotation, Level: verify.Warning, Line: a.Line, Column: a.Column,
				Message: fmt.Sprintf("the annotation %q does nothing since Kubernetes 1.27", a.Key), Fix: "say it in securityContext.seccompProfile"})
		}
	}
	for _, b := range m.Bindings {
		all = append(all, verify.Finding{Rule: ruleBinding, Level: verify.Warning, Line: b.Line, Column: b.Column,
			Message: fmt.Sprintf("whether containers of %q have %s %s depends on the operator's webhook", b.Image, b.ProfileKind, b.Profile),
			Fix:     "name the profile in the pods, as Localhost " + kube.OperatorProfile(b.Profile)})
	}
	return all
}
