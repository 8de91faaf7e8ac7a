package gen

import (
	"fmt"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Carrier is what brings profiles to the nodes of a cluster.
type Carrier string

const (
	// CarrierFiles are files below the kubelet's directory, however they come there.
	CarrierFiles Carrier = "files"
	// CarrierOperator is the Security Profiles Operator.
	CarrierOperator Carrier = "operator"
)

// Carriers lists the carriers, the usual one first.
func Carriers() []string { return []string{string(CarrierFiles), string(CarrierOperator)} }

// KubernetesOptions are those of the Kubernetes target.
type KubernetesOptions struct {
	SeccompOptions
	Carrier Carrier // files without one
	// Artifact is where the profile for a registry was put, by its digest; admission
	// takes it then.
	Artifact string
}

// Gaps of the output, by the name that --accept takes.
const (
	// gapAdmission is what no admission sees.
	gapAdmission = "admission"
	// The following are wider only where they are accepted, which has admission
	// leave such containers to what the nodes do.
	gapUnconfined     = "unconfined"
	gapRuntimeDefault = "runtime-default"
	gapLocalhost      = "localhost"
)

var kubernetesGaps = []plan.Gap{
	plan.Wider.Gap(gapAdmission, nil, "admission does not see static pods, nor pods that are there already, nor those of the namespaces kube-system and "+kube.Namespace+
		" and of namespaces with the label "+kube.LabelExempt+", which whoever may label a namespace can set; it believes that each node has the profiles as they are here"),
}

// Kubernetes writes what a cluster takes to have the policy in force, for an
// administrator who applies it step by step: audit and warn, mutate, deny; and the
// profiles.
func Kubernetes(p *plan.Plan, o KubernetesOptions) ([]File, []plan.Gap, error) {
	if err := checkArtifact(o.Artifact); err != nil {
		return nil, nil, err
	}
	grants, sets, gaps, err := kubernetesHeld(p, o.Grants)
	if err != nil {
		return nil, gaps, err
	}
	a := admission{options: o, plan: p, grants: grants, sets: sets}
	gaps = append(slices.Clone(kubernetesGaps), append(gaps, a.unconfinedGaps()...)...)
	files, more, err := a.profiles()
	gaps = append(gaps, more...)
	if err != nil {
		return nil, distinctGaps(gaps), err
	}
	artifact, more, err := kubernetesArtifact(p)
	gaps = distinctGaps(append(gaps, more...))
	if err != nil {
		return nil, gaps, err
	}
	if err := o.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	objects, err := a.render(gaps)
	if err != nil {
		return nil, gaps, err
	}
	return slices.Concat(objects, files, artifact), gaps, nil
}

// profiles are the files of the carrier, which may know no grants.
func (a *admission) profiles() (files []File, gaps []plan.Gap, err error) {
	switch a.options.Carrier {
	case CarrierFiles, "":
		files, gaps, err = kubernetesProfiles(a.plan, a.sets, a.options.SeccompOptions)
		for i := range files {
			files[i].Path = "profiles/" + files[i].Path
		}
		return files, gaps, err
	case CarrierOperator:
		a.sets = nil // its objects take no listener of ours
		return a.operatorProfiles()
	}
	return nil, nil, fmt.Errorf("unknown carrier of profiles %q: %v are known", a.options.Carrier, Carriers())
}

// unconfinedGaps is about containers that run under another profile than ours.
func (a *admission) unconfinedGaps() (gaps []plan.Gap) {
	what := "privileged containers, and those that are Unconfined,"
	switch u := a.plan.Unconfined; {
	case u == plan.Allow:
	case u.MayBeFree() && a.accepts(gapUnconfined):
		gaps = append(gaps, plan.Wider.Gap(gapUnconfined, nil, what+" are admitted on every node; on one where the kernel half is not in force they have every algorithm"))
	case u == plan.Harden && a.accepts(gapUnconfined):
		gaps = append(gaps, plan.Wider.Gap(gapUnconfined, nil, what+" are admitted; they are closed only where the node's runtime hardens them (install containerd, agent --nri)"))
	case u == plan.Harden:
		gaps = append(gaps, plan.Stricter.Gap(gapUnconfined, nil, what+" are refused: admission cannot give them a profile; --accept unconfined admits them, for nodes whose runtime hardens them (install containerd, agent --nri)"))
	case u == plan.LSM:
		gaps = append(gaps, plan.Stricter.Gap(gapUnconfined, nil, what+" are refused: admission cannot see whether the kernel half is in force on a node; --accept unconfined admits them, for clusters where it is on every one"))
	}
	const byNodes = "closed only where the node's runtime applies the policy (install containerd, agent --nri)"
	if a.accepts(gapRuntimeDefault) {
		gaps = append(gaps, plan.Wider.Gap(gapRuntimeDefault, nil, "containers under RuntimeDefault are admitted as they are; they are "+byNodes))
	} else {
		gaps = append(gaps, plan.Stricter.Gap(gapRuntimeDefault, nil, "containers under RuntimeDefault get the profile of this output, or are refused; --accept runtime-default leaves them as they are, for nodes whose runtime hardens that profile"))
	}
	if a.accepts(gapLocalhost) {
		gaps = append(gaps, plan.Wider.Gap(gapLocalhost, nil, "containers with a Localhost profile of others are admitted; they are "+byNodes+", or the file does it"))
	} else {
		gaps = append(gaps, plan.Stricter.Gap(gapLocalhost, nil, "containers with a Localhost profile of others are refused, since nobody here knows the file; --accept localhost admits them"))
	}
	return gaps
}

// accepts reports whether the user took a gap on that is wider for that reason
// alone.
func (a *admission) accepts(name string) bool { return slices.Contains(a.options.Accept, name) }

// admitsUnconfined reports whether a container without a filter is admitted.
func (a *admission) admitsUnconfined() bool {
	u := a.plan.Unconfined
	return u == plan.Allow || (u == plan.Harden || u == plan.LSM) && a.accepts(gapUnconfined)
}
