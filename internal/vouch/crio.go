package vouch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// CRI-O writes these keys into the spec (read from its source, main of August
// 2026: internal/factory/container/container.go, server/sandbox_run_linux.go).
// In a container it writes in this order, and a later value replaces an earlier
// one: the annotations of the pod; CRI-O's own; the annotations that the
// kubelet gives the container; its labels, four of them from the kubelet. In a
// sandbox the annotations of the pod come after CRI-O's own.
const (
	crioOwn       = "io.kubernetes.cri-o."
	crioLabels    = crioOwn + "Labels"
	crioID        = crioOwn + "ContainerID"
	crioKind      = crioOwn + "ContainerType"
	crioImageID   = crioOwn + "ImageRef"
	crioImage     = crioOwn + "Image" // as it was asked for
	crioImageName = crioOwn + "ImageName"
	crioManager   = "io.container.manager"

	kubeName      = "io.kubernetes.container.name"
	kubePod       = "io.kubernetes.pod.name"
	kubeNamespace = "io.kubernetes.pod.namespace"
	crioSandbox   = "POD" // the name of every sandbox; a container cannot have it
)

func crio(s Source, c *plan.Container) error {
	a := s.Spec.Annotations
	switch {
	case s.ID == "":
		return errNoID
	case a[crioManager] != "cri-o":
		return fmt.Errorf("the annotation %s is %.100q: this is no container of CRI-O", crioManager, a[crioManager])
	case a[crioID] != s.ID:
		return fmt.Errorf("the annotation %s is %.100q, and the container is %s", crioID, a[crioID], s.ID)
	}
	labels, err := crioLabelsOf(a)
	if err != nil {
		return err
	}
	c.Vouched.Pod, c.Vouched.Namespace = a[kubePod], a[kubeNamespace]
	if a[kubeName] == crioSandbox || a[crioKind] == "sandbox" {
		return nil // there the pod can have written all the rest
	}
	c.Vouched.Name = a[kubeName]
	c.Vouched.Labels = labels
	c.Vouched.Images = sortedOnce(append(digestsOf(a[crioImage], a[crioImageName], a[crioImageID]), imageID(a[crioImageID])...))
	// Some of CRI-O's own keys are written only where there is a value, so
	// that the pod can set them.
	splitAnnotations(c, s.Spec, func(key string) bool { return strings.HasPrefix(key, crioOwn) })
	return nil
}

// crioLabelsOf reads the labels from CRI-O's own annotation. Without labels of
// the kubelet, the pod's annotations could stand under their keys: so both must
// agree.
func crioLabelsOf(a map[string]string) (map[string]string, error) {
	v, err := jsontext.Parse([]byte(a[crioLabels]))
	if err != nil {
		return nil, fmt.Errorf("the annotation %s: %w", crioLabels, err)
	}
	labels, err := v.Texts("")
	if err != nil {
		return nil, fmt.Errorf("the annotation %s: %w", crioLabels, err)
	}
	for _, key := range []string{kubeName, kubePod, kubeNamespace} {
		if labels[key] == "" || labels[key] != a[key] {
			return nil, errors.New("the annotation " + key + " is not the container's label of that name")
		}
	}
	return labels, nil
}

var hex64 = lazily(`^[0-9a-f]{64}$`)

// imageID returns an image ID of containers/storage as a digest.
func imageID(id string) []string {
	if !hex64().MatchString(id) {
		return nil
	}
	return []string{"sha256:" + id}
}
