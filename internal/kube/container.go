package kube

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Role is what a container is in its pod.
type Role string

const (
	Main      Role = "container"
	Init      Role = "init container"
	Ephemeral Role = "ephemeral container"
)

// Type is that of a seccomp profile, in the words of Kubernetes.
type Type string

const (
	// Undefined is the type of no profile: Unconfined, unless the kubelet has
	// seccompDefault, with which it is RuntimeDefault.
	Undefined      Type = ""
	Unconfined     Type = "Unconfined"
	RuntimeDefault Type = "RuntimeDefault"
	Localhost      Type = "Localhost"
	// OCI names an artifact of a registry, from 1.38 on. Earlier kubelets take a type that
	// they do not know for Unconfined.
	OCI Type = "OCI"
)

// Container is one of a pod's, with the profile that the kubelet passes on for it.
type Container struct {
	Place      // of what decides
	Name       string
	Role       Role
	Privileged bool // then runtimes load no filter, whatever the profile
	Type       Type
	Localhost  string   // the file, relative to SeccompRoot; of Localhost alone
	OfPod      bool     // the pod says the profile, not the container
	Add, Drop  []string // capabilities, as they are written
	Annotation *Annotation
}

// Annotation says the profile in the way that kubelets heeded up to 1.26. Later
// ones pass it over, without a word.
type Annotation struct {
	Place
	Key, Value string
}

const (
	podAnnotation       = "seccomp.security.alpha.kubernetes.io/pod"
	containerAnnotation = "container.seccomp.security.alpha.kubernetes.io/"
)

// pod is what is read of a pod, or of a template of one.
type pod struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		OS struct {
			Name string `json:"name"`
		} `json:"os"`
		SecurityContext     securityContext `json:"securityContext"`
		Containers          []container     `json:"containers"`
		InitContainers      []container     `json:"initContainers"`
		EphemeralContainers []container     `json:"ephemeralContainers"`
	} `json:"spec"`
}

type container struct {
	Name            string          `json:"name"`
	SecurityContext securityContext `json:"securityContext"`
}

// securityContext is that of a pod or of a container. What the other alone knows
// has no meaning in it, as for the API server.
type securityContext struct {
	SeccompProfile *seccompProfile `json:"seccompProfile"`
	Privileged     *bool           `json:"privileged"`
	Capabilities   struct {
		Add  []string `json:"add"`
		Drop []string `json:"drop"`
	} `json:"capabilities"`
}

type seccompProfile struct {
	Type             Type    `json:"type"`
	LocalhostProfile *string `json:"localhostProfile"`
}

// read reads the pod at a pointer.
func (w *Workload) read(d *document, pointer string) error {
	var p pod
	if err := d.decode(pointer, &p); err != nil {
		return err
	}
	w.Windows = p.Spec.OS.Name == "windows"
	r := podReader{d, pointer, &p}
	if p.Spec.SecurityContext.SeccompProfile != nil {
		if err := r.check(p.Spec.SecurityContext.SeccompProfile, pointer+"/spec/securityContext"); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		role       Role
		key        string
		containers []container
	}{
		{Init, "initContainers", p.Spec.InitContainers},
		{Main, "containers", p.Spec.Containers},
		{Ephemeral, "ephemeralContainers", p.Spec.EphemeralContainers},
	} {
		for i, c := range list.containers {
			one, err := r.container(c, pointer+"/spec/"+list.key+"/"+strconv.Itoa(i))
			if err != nil {
				return err
			}
			one.Role = list.role
			w.Containers = append(w.Containers, one)
		}
	}
	if len(p.Spec.Containers) == 0 {
		return d.failAt(pointer, "%w", errNoContainers)
	}
	return nil
}

// podReader reads the containers of one pod.
type podReader struct {
	*document
	pointer string
	pod     *pod
}

// container decides as the kubelet does (pkg/kubelet/kuberuntime/helpers.go,
// getSeccompProfile): a profile of the container counts alone.
func (r podReader) container(c container, pointer string) (Container, error) {
	own := c.SecurityContext
	out := Container{Place: r.at(pointer), Name: c.Name, Add: own.Capabilities.Add, Drop: own.Capabilities.Drop}
	from, context := own.SeccompProfile, pointer+"/securityContext"
	if from != nil {
		if err := r.check(from, context); err != nil {
			return out, err
		}
	} else {
		from, context = r.pod.Spec.SecurityContext.SeccompProfile, r.pointer+"/spec/securityContext"
		out.OfPod = from != nil
	}
	if from != nil {
		out.Type, out.Place = from.Type, r.at(context+"/seccompProfile/type")
		if from.LocalhostProfile != nil {
			out.Localhost, out.Place = *from.LocalhostProfile, r.at(context+"/seccompProfile/localhostProfile")
		}
	}
	if own.Privileged != nil && *own.Privileged {
		out.Privileged, out.Place = true, r.at(pointer+"/securityContext/privileged")
	}
	out.Annotation = r.annotation(c.Name)
	return out, nil
}

// check refuses what the API server refuses, and what the kubelet starts no container
// for. In an API server that took them, an unknown type would mean Unconfined.
func (r podReader) check(p *seccompProfile, context string) error {
	at := context + "/seccompProfile"
	if p.Type == OCI {
		return nil
	}
	if !slices.Contains([]Type{Unconfined, RuntimeDefault, Localhost}, p.Type) {
		return r.failAt(at+"/type", "a seccompProfile of type %q: the types are RuntimeDefault, Localhost, Unconfined, and OCI from Kubernetes 1.38 on", p.Type)
	}
	if (p.LocalhostProfile != nil) != (p.Type == Localhost) {
		return r.failAt(at, "localhostProfile goes with type Localhost, and with no other")
	}
	if p.LocalhostProfile == nil {
		return nil
	}
	if err := CheckLocalhost(*p.LocalhostProfile); err != nil {
		return r.failAt(at+"/localhostProfile", "localhostProfile: %w", err)
	}
	return nil
}

// CheckLocalhost refuses a localhostProfile that no API server or no kubelet takes.
func CheckLocalhost(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("it is empty: name a file below %s", SeccompRoot)
	case path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), ".."):
		return fmt.Errorf("%q: name a file below %s, relative to it, with no .. in it", name, SeccompRoot)
	}
	return nil
}

// annotation is the one that would have decided about a container.
func (r podReader) annotation(name string) *Annotation {
	for _, key := range []string{containerAnnotation + name, podAnnotation} {
		if value, is := r.pod.Metadata.Annotations[key]; is {
			pointer := r.pointer + "/metadata/annotations/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
			return &Annotation{r.at(pointer), key, value}
		}
	}
	return nil
}
