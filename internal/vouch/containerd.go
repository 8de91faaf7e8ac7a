package vouch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// containerd's CRI plugin writes these keys into the spec after the annotations
// of the pod, which therefore cannot overwrite them. containerd 1.6.20:
// pkg/cri/server/container_create_linux.go; 2.4: internal/cri/annotations.
const (
	criOwn       = "io.kubernetes.cri."
	criName      = criOwn + "container-name"
	criPod       = criOwn + "sandbox-name"
	criNamespace = criOwn + "sandbox-namespace"
	criImage     = criOwn + "image-name"
)

// taskDirs hold the bundles, as STATE/TASKS/NAMESPACE/ID.
var taskDirs = []string{"io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"}

// kubernetes is the containerd namespace of the CRI plugin. In criState the
// plugin keeps a directory for each of its containers, in 1.6 and in 2.4.
const (
	kubernetes = "k8s.io"
	criState   = "io.containerd.grpc.v1.cri"
)

// containerd makes the bundle's path from the namespace and the ID.
func containerd(s Source, c *plan.Container) error {
	state, tasks, namespace, err := taskOf(s)
	if err != nil {
		return err
	}
	st, err := openStore(state)
	if err != nil {
		return err
	}
	defer st.close()
	if err := st.dir(tasks, namespace, s.ID); err != nil {
		return err
	}
	if namespace == kubernetes {
		switch kind, err := criKind(st, s.ID); {
		case err != nil:
			return err
		case kind != "":
			return cri(s.Spec, c, kind)
		}
	}
	// An unknown client of containerd set the annotations. nerdctl's have
	// labels of the image among them: those with "nerdctl/" in the key (its
	// source of August 2026; 1.7 took the user's alone).
	c.Vouched.Name, c.Vouched.Namespace = s.ID, namespace
	return nil
}

// taskOf splits STATE/TASKS/NAMESPACE/ID.
func taskOf(s Source) (state, tasks, namespace string, err error) {
	if s.ID == "" {
		return "", "", "", errNoID
	}
	bundle := filepath.Clean(s.Bundle)
	parent := filepath.Dir(bundle)
	state, tasks = filepath.Split(filepath.Dir(parent))
	namespace = filepath.Base(parent)
	if !filepath.IsAbs(bundle) || filepath.Base(bundle) != s.ID || !slices.Contains(taskDirs, tasks) || checkID(namespace) != nil {
		return "", "", "", fmt.Errorf("bundle %.300q: containerd's are STATE/%s/NAMESPACE/%s", s.Bundle, taskDirs[0], s.ID)
	}
	return state, tasks, namespace, nil
}

// criKind is the kind of container that the CRI plugin made, and "" if another
// client made it. Others run containers in its namespace too, with annotations
// of their own; only the plugin makes its directory.
func criKind(st *store, id string) (string, error) {
	for _, kind := range []string{"containers", "sandboxes"} {
		err := st.dir(criState, kind, id)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return kind, err
		}
	}
	return "", nil
}

// cri reads the keys of the CRI plugin. The other annotations are those of the
// pod that the administrator lets through (pod_annotations), and those of
// devices: no part of an image is among them.
func cri(spec *profile.Config, c *plan.Container, kind string) error {
	a := spec.Annotations
	if a[criPod] == "" || a[criNamespace] == "" {
		return fmt.Errorf("a container of Kubernetes without the annotations %s and %s", criPod, criNamespace)
	}
	c.Vouched.Pod, c.Vouched.Namespace = a[criPod], a[criNamespace]
	if kind == "sandboxes" {
		return nil // the plugin does not write the name and the image there: the pod can
	}
	c.Vouched.Name = a[criName]
	c.Vouched.Images = digestsOf(a[criImage])
	// Of the plugin's keys, the pod can set those that it does not.
	splitAnnotations(c, spec, func(key string) bool { return strings.HasPrefix(key, criOwn) })
	return nil
}

var (
	digestForm = lazily(`^sha256:[0-9a-f]{64}$`)
	digestEnd  = lazily(`(?:^|@)(sha256:[0-9a-f]{64})$`)
)

// digestsOf returns the digests in references of images: NAME@DIGEST, or
// DIGEST.
func digestsOf(references ...string) []string {
	var list []string
	for _, r := range references {
		if m := digestEnd().FindStringSubmatch(r); m != nil {
			list = append(list, m[1])
		}
	}
	return sortedOnce(list)
}

func sortedOnce(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
