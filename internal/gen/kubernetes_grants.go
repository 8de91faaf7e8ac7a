package gen

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// The platforms that start containers for a kubelet.
var kubernetesPlatforms = []string{"containerd", "crio"}

// gapContainerSockets is about grants of the sockets of 32-bit programs.
const gapContainerSockets = "container-sockets"

// Limits on what the grants of a policy come to. A profile with a listener takes
// a second or so to prove.
const (
	maxKubernetesSets  = 100
	maxKubernetesCells = 10_000
	// maxAdmissionEntries bounds what admission walks for a pod with a grant: the API
	// server has a budget, beyond which it refuses.
	maxAdmissionEntries = 3_000
)

// kubeGrant is a grant as admission can ask for it. An empty list is no condition.
type kubeGrant struct {
	rules                    []string
	namespaces, pods, names  []string
	leftToKernel, algorithms bool
}

// holds reports whether the grant is for a container; an empty text is one that
// no grant names.
func (g *kubeGrant) holds(namespace, pod, name string) bool {
	is := func(list []string, one string) bool { return len(list) == 0 || slices.Contains(list, one) }
	return is(g.namespaces, namespace) && is(g.pods, pod) && is(g.names, name)
}

// reach says for whom a grant holds that has lost its other conditions.
func (g *kubeGrant) reach() string {
	if len(g.namespaces)+len(g.pods)+len(g.names) > 0 {
		return ""
	}
	return ": for every container"
}

// kubernetesHeld says what containers may hold: the grants that admission can ask for,
// and the sets of rules that come of them.
func kubernetesHeld(p *plan.Plan, dropped []string) (grants []kubeGrant, sets []kubernetesSet, gaps []plan.Gap, err error) {
	grants, gaps, err = kubernetesGrants(p, dropped)
	if err == nil {
		sets, err = kubernetesSets(grants)
	}
	return grants, sets, gaps, err
}

// kubernetesGrants are the grants of a policy that admission can tell. A rule in
// dropped holds without the conditions that it cannot; any other is left out.
func kubernetesGrants(p *plan.Plan, dropped []string) (grants []kubeGrant, gaps []plan.Gap, err error) {
	sockets := false
	idle := slices.Clone(dropped)
	for i := range p.Grants {
		g := &p.Grants[i]
		if g.Builds || len(g.Platforms) > 0 && !slices.ContainsFunc(kubernetesPlatforms, func(k string) bool { return slices.Contains(g.Platforms, k) }) {
			continue // for no container of a kubelet
		}
		sockets = sockets || g.Socketcall != ""
		one := kubeGrant{
			namespaces: g.Namespaces, pods: g.Pods, names: g.Names,
			leftToKernel: g.DecidedBy == policy.DecidedByLSM && g.Socketcall == "",
		}
		unasked := unaskedByAdmission(g)
		for _, r := range g.Rules {
			switch {
			case unasked == nil:
			case slices.Contains(dropped, r.Name):
				idle = slices.DeleteFunc(idle, func(name string) bool { return name == r.Name })
				gaps = append(gaps, plan.Wider.Gap(r.Name, nil, fmt.Sprintf("the grant at %s holds without %s, for which admission cannot vouch%s", g.Pos, strings.Join(unasked, " and "), one.reach())))
			default:
				gaps = append(gaps, plan.Stricter.Gap(r.Name, nil, fmt.Sprintf("the grant at %s does not hold: admission cannot vouch for %s; --grant %s drops that", g.Pos, strings.Join(unasked, " and "), r.Name)))
				continue
			}
			one.rules = append(one.rules, r.Name)
		}
		if len(one.rules) > 0 {
			one.algorithms = len(p.WithAlgorithms(one.rules)) > 0
			grants = append(grants, one)
		}
	}
	if sockets {
		gaps = append(gaps, plan.Stricter.Gap(gapContainerSockets, nil,
			"no grant of the sockets of 32-bit programs holds: a file is named by the rules in it; the wrapper runtime and the agent's NRI plugin carry such a grant out"))
	}
	if len(idle) > 0 {
		return nil, gaps, fmt.Errorf("--grant %s: the policy gives the rule to no container of Kubernetes under a condition that admission cannot vouch for", idle[0])
	}
	return grants, gaps, nil
}

// unaskedByAdmission lists the conditions of a grant that are no facts at
// admission: labels and annotations are their author's and may change, an image is
// pulled later, and the node is not chosen yet.
func unaskedByAdmission(g *policy.Grant) (names []string) {
	if len(g.Images) > 0 {
		names = append(names, "images")
	}
	if len(g.Labels) > 0 {
		names = append(names, "labels")
	}
	if len(g.Annotations) > 0 {
		names = append(names, "annotations")
	}
	for _, platform := range kubernetesPlatforms {
		if len(g.Platforms) > 0 && !slices.Contains(g.Platforms, platform) {
			return append(names, "platforms (all of "+strings.Join(kubernetesPlatforms, ", ")+" can be told)")
		}
	}
	return names
}

// kubernetesSet is a set of rules that some containers hold, and that has a
// profile.
type kubernetesSet struct {
	rules []string // sorted
	left  bool     // the kernel half decides, and no agent
}

func (s kubernetesSet) file() string { return kube.GrantedProfile(s.rules) }

// kubernetesSets are the sets that containers hold, each once, by the names of
// their files.
func kubernetesSets(grants []kubeGrant) ([]kubernetesSet, error) {
	found := map[string]kubernetesSet{}
	entries, cells := 0, 0
	for _, g := range grants {
		entries += 1 + len(g.rules) + len(g.namespaces) + len(g.pods) + len(g.names)
	}
	if entries > maxAdmissionEntries {
		return nil, fmt.Errorf("the grants of the policy to containers of Kubernetes have more than %d values in all, more than the API server looks through for a pod: grant fewer, or to fewer namespaces", maxAdmissionEntries)
	}
	for _, namespace := range mentioned(grants, func(g *kubeGrant) []string { return g.namespaces }) {
		here := slices.DeleteFunc(slices.Clone(grants), func(g kubeGrant) bool {
			return len(g.namespaces) > 0 && !slices.Contains(g.namespaces, namespace)
		})
		pods := mentioned(here, func(g *kubeGrant) []string { return g.pods })
		names := mentioned(here, func(g *kubeGrant) []string { return g.names })
		if cells += len(pods) * len(names); cells > maxKubernetesCells {
			return nil, fmt.Errorf("the grants of the policy tell more than %d kinds of containers apart by namespace, pod and name: grant by namespaces, or fewer", maxKubernetesCells)
		}
		for _, pod := range pods {
			for _, name := range names {
				if rules := rulesHeld(here, namespace, pod, name); rules != nil {
					s := kubernetesSet{rules: rules, left: leftToKernel(grants, rules)}
					found[s.file()] = s
				}
			}
		}
		if len(found) > maxKubernetesSets {
			return nil, fmt.Errorf("the grants of the policy make more than %d different sets of rules, and each has a profile: grant fewer", maxKubernetesSets)
		}
	}
	var sets []kubernetesSet
	for _, file := range slices.Sorted(maps.Keys(found)) {
		sets = append(sets, found[file])
	}
	return sets, nil
}

// mentioned are the values of a condition, and "" for every other.
func mentioned(grants []kubeGrant, of func(*kubeGrant) []string) []string {
	all := []string{""}
	for i := range grants {
		all = append(all, of(&grants[i])...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func rulesHeld(grants []kubeGrant, namespace, pod, name string) (rules []string) {
	for i := range grants {
		if grants[i].holds(namespace, pod, name) {
			rules = append(rules, grants[i].rules...)
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// leftToKernel reports whether every grant of algorithms that gives one of the
// rules leaves them to the kernel half. One file serves all who hold the set, so
// that the agent decides as soon as one of them asks for it.
func leftToKernel(grants []kubeGrant, rules []string) bool {
	left := false
	for i := range grants {
		g := &grants[i]
		if !g.algorithms || !slices.ContainsFunc(g.rules, func(r string) bool { return slices.Contains(rules, r) }) {
			continue
		}
		if !g.leftToKernel {
			return false
		}
		left = true
	}
	return left
}
