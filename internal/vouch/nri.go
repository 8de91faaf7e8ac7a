package vouch

import (
	"maps"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Told is what containerd tells a plugin about a container of a pod, over NRI
// (containerd 2.4.2: internal/cri/nri, internal/nri).
type Told struct {
	ID, Namespace, Pod, Name string // of the container, its pod, and its name in there
	// Labels are those of the container, into which containerd merges the image's.
	Labels map[string]string
	// PodLabels and PodAnnotations are the author's of the pod.
	PodLabels, PodAnnotations map[string]string
	// Digests are those of the image's index, manifest and configuration, from
	// containerd 2.4 on.
	Digests []string
	Spec    *profile.Config
}

// NRI identifies a container by what containerd tells a plugin. The same counts
// as where containerd starts the container through a runtime of ours: then both
// give the same grants. A digest besides is one that containerd resolved.
func NRI(t Told) plan.Container {
	c := plan.Container{Platform: "containerd", ID: t.ID}
	c.Vouched.Name, c.Vouched.Pod, c.Vouched.Namespace = t.Name, t.Pod, t.Namespace
	c.Vouched.Images = digestsOf(t.Digests...)
	splitAnnotations(&c, t.Spec, func(key string) bool { return strings.HasPrefix(key, criOwn) })
	for k, v := range t.PodAnnotations {
		if _, passed := c.Vouched.Annotations[k]; !passed {
			c.Claimed.Annotations[k] = v
		}
	}
	c.Claimed.Labels = maps.Clone(t.Labels)
	if c.Claimed.Labels == nil {
		c.Claimed.Labels = map[string]string{}
	}
	maps.Copy(c.Claimed.Labels, t.PodLabels)
	c.Asks = asks(t.Spec, &c)
	return c
}
