package vouch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const nriDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// What the kubelet and containerd say counts, and what a pod and an image say does not.
func TestNRI(t *testing.T) {
	told := Told{
		ID: "5d2f", Namespace: "crypto", Pod: "web-0", Name: "web",
		Labels:         map[string]string{"app": "web", "io.kubernetes.pod.namespace": "crypto"},
		PodLabels:      map[string]string{"tier": "front", "io.afalg-policy.grant": "digest"},
		PodAnnotations: map[string]string{"team": "a", "passed": "b"},
		Digests:        []string{nriDigest, "", "latest", "sha256:12"},
		Spec: &profile.Config{
			Env:         []string{"AFALG_POLICY_GRANT=integrity"},
			Annotations: map[string]string{"passed": "b", "io.kubernetes.cri.sandbox-name": "web-0", "org.opencontainers.image.title": "web"},
		},
	}
	want := plan.Container{
		Platform: "containerd", ID: "5d2f",
		Vouched: plan.Identity{
			Name: "web", Namespace: "crypto", Pod: "web-0", Images: []string{nriDigest},
			Annotations: map[string]string{"passed": "b"},
		},
		Claimed: plan.Identity{
			Labels:      map[string]string{"app": "web", "io.kubernetes.pod.namespace": "crypto", "tier": "front", "io.afalg-policy.grant": "digest"},
			Annotations: map[string]string{"team": "a", "io.kubernetes.cri.sandbox-name": "web-0", "org.opencontainers.image.title": "web"},
		},
		Asks: []string{"digest", "integrity"},
	}
	if d := cmp.Diff(want, NRI(told)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Neither labels nor a pod's annotations are worth a grant.
func TestNRIClaims(t *testing.T) {
	grant := func(change func(*policy.Grant)) policy.Grant {
		g := policy.Grant{Rules: []policy.GrantedRule{{Name: "digest"}}}
		change(&g)
		return g
	}
	p := &plan.Plan{Rules: []policy.Rule{{Name: "digest", Anyone: true}}, Grants: []policy.Grant{
		grant(func(g *policy.Grant) { g.Labels = map[string]string{"app": "web"} }),
		grant(func(g *policy.Grant) { g.Annotations = map[string]string{"team": "a"} }),
	}}
	rules, refused := p.GrantsOf(NRI(Told{
		ID: "1", Namespace: "default", Pod: "p", Name: "c", Labels: map[string]string{"app": "web"}, PodLabels: map[string]string{"app": "web"},
		PodAnnotations: map[string]string{"team": "a"}, Spec: &profile.Config{},
	}))
	if len(rules) > 0 || len(refused) == 0 {
		t.Errorf("it holds %v, refused %v", rules, refused)
	}
}
