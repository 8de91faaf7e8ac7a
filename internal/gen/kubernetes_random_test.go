package gen

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const randomPods = 3000

// TestKubernetesAgreesWithReader compares the admission policies, as the API server
// evaluates them, with the reader of manifests and the reference semantics of grants,
// about random pods.
func TestKubernetesAgreesWithReader(t *testing.T) {
	p := kubernetesPlan(t, kubernetesTable)
	r := podMaker{rand.New(rand.NewPCG(1, 2))}
	var requests []serverRequest
	for range randomPods {
		requests = append(requests, r.request(t))
	}
	validating := []string{"audit/policy.yaml", "deny/binding.yaml"}
	alone := askServerRaw(t, admissionObjects(t, p, validating...), requests)
	both := askServerRaw(t, admissionObjects(t, p, append(validating, "mutate/policy.yaml", "mutate/binding.yaml")...), requests)
	counts := map[string]int{}
	for i, request := range requests {
		for step, a := range map[string]*serverAnswer{"alone": alone, "mutated": both} {
			pod := request.Pod
			if step == "mutated" {
				pod = a.Case[i].Pod
			}
			got := len(a.Case[i].Denied) == 0
			want, read := readerAdmits(t, p, request.Namespace, pod)
			switch {
			case !read:
				counts[step+" unread"]++
				if got && a.Case[i].Invalid == "" {
					t.Errorf("%s: the reader refuses what the server admits:\n%s", step, pod)
				}
			case got != want:
				t.Errorf("%s: admitted %v, by the reader %v, in %s: %v\n%s", step, got, want, request.Namespace, a.Case[i].Denied, pod)
			case got:
				counts[step+" admitted"]++
			default:
				counts[step+" refused"]++
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Log(counts)
	for _, what := range []string{"alone admitted", "alone refused", "mutated admitted", "mutated refused"} {
		if counts[what] < randomPods/20 {
			t.Errorf("%s: %d of %d pods", what, counts[what], randomPods)
		}
	}
}

// readerAdmits decides by the reader; read is false for a pod that it refuses.
func readerAdmits(t *testing.T, p *plan.Plan, namespace string, pod []byte) (admits, read bool) {
	t.Helper()
	var withKind map[string]any
	if err := json.Unmarshal(pod, &withKind); err != nil {
		t.Fatal(err)
	}
	withKind["apiVersion"], withKind["kind"] = "v1", "Pod"
	text, err := json.Marshal(withKind)
	if err != nil {
		t.Fatal(err)
	}
	m, err := kube.Read(text)
	if err != nil {
		return false, false
	}
	if len(m.Workloads) != 1 {
		t.Fatalf("%d workloads in %s", len(m.Workloads), text)
	}
	w := m.Workloads[0]
	if w.Windows {
		return true, true
	}
	return !slices.ContainsFunc(w.Containers, func(c kube.Container) bool {
		return c.Privileged || !holdsFile(p, namespace, w.Name, c)
	}), true
}

// holdsFile reports whether a container may have the file that it names, by the
// reference semantics.
func holdsFile(p *plan.Plan, namespace, pod string, c kube.Container) bool {
	if c.Type != kube.Localhost {
		return false
	}
	held, _ := p.GrantsOf(plan.Container{Platform: "containerd", Vouched: plan.Identity{Name: c.Name, Namespace: namespace, Pod: pod}})
	for mask := range 1 << len(held) {
		var rules []string
		for i, rule := range held {
			if mask&(1<<i) != 0 {
				rules = append(rules, rule)
			}
		}
		if c.Localhost == kube.GrantedProfile(rules) {
			return slices.Contains(tableFiles, c.Localhost)
		}
	}
	return false
}

// tableFiles are those of the policy of the table.
var tableFiles = []string{
	kube.DefaultProfile, "afalg-policy/granted/digest.json", "afalg-policy/granted/digest.keys.json",
	"afalg-policy/granted/digest.vpn.json", "afalg-policy/granted/keys.json",
}

type podMaker struct{ *rand.Rand }

func pick[T any](r podMaker, from ...T) T { return from[r.IntN(len(from))] }

func (r podMaker) request(t *testing.T) serverRequest {
	spec := map[string]any{"containers": r.containers(1+r.IntN(3), "c", "d", "ike", "keeper")}
	if r.IntN(3) == 0 {
		spec["initContainers"] = r.containers(1+r.IntN(2), "i", "j")
	}
	if context := r.context(false); context != nil {
		spec["securityContext"] = context
	}
	if r.IntN(20) == 0 {
		spec["os"] = map[string]any{"name": pick(r, "linux", "windows")}
	}
	pod := map[string]any{"metadata": map[string]any{"name": pick(r, "gate", "web")}, "spec": spec}
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return serverRequest{Pod: text, Namespace: pick(r, "crypto", "shop", "default"), Operation: "CREATE"}
}

func (r podMaker) containers(n int, names ...string) []any {
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var all []any
	for _, name := range names[:n] {
		c := map[string]any{"name": name, "image": "x"}
		if context := r.context(true); context != nil && r.IntN(2) == 0 {
			c["securityContext"] = context
		}
		all = append(all, c)
	}
	return all
}

// context is a security context, or none.
func (r podMaker) context(ofContainer bool) map[string]any {
	if r.IntN(4) == 0 {
		return nil
	}
	context := map[string]any{}
	if ofContainer && r.IntN(10) == 0 {
		context["privileged"] = pick(r, true, false)
	}
	if r.IntN(5) > 0 {
		profile := map[string]any{"type": "Localhost"}
		switch r.IntN(8) {
		case 0:
			profile["type"] = pick(r, "Unconfined", "OCI")
		case 1:
			profile["type"] = "RuntimeDefault"
		case 2:
			profile["localhostProfile"] = pick(r, "x.json", "./"+kube.DefaultProfile, "afalg-policy//default.json", "afalg-policy/granted/vpn.json", "../x")
		case 3, 4:
			profile["localhostProfile"] = kube.DefaultProfile
		default:
			profile["localhostProfile"] = pick(r, tableFiles...)
		}
		context["seccompProfile"] = profile
	}
	return context
}
