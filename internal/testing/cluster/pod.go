package cluster

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
)

// Pod is a pod of one container.
type Pod struct {
	Namespace, Name string
	Image           string
	Script          string // of sh
	Container       Object // its security context
	Spec            Object // further fields of the pod's
	// Scheduled leaves the choice of the node to the scheduler, which heeds taints.
	Scheduled bool
}

// Object is the pod as it is sent to the API server.
func (p Pod) Object() Object {
	container := Object{"name": "c", "image": p.Image, "imagePullPolicy": "Never", "command": []any{"sh", "-c", p.Script}}
	if p.Container != nil {
		container["securityContext"] = p.Container
	}
	spec := Object{"containers": []any{container}, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
		"automountServiceAccountToken": false, "enableServiceLinks": false}
	if !p.Scheduled {
		spec["nodeName"] = nodeName
		spec["tolerations"] = []any{Object{"operator": "Exists"}}
	}
	maps.Copy(spec, p.Spec)
	return Object{"apiVersion": "v1", "kind": "Pod", "metadata": Object{"name": p.Name, "namespace": p.Namespace}, "spec": spec}
}

func (p Pod) path() string { return "/api/v1/namespaces/" + p.Namespace + "/pods/" + p.Name }

// PodStatus is what the kubelet says of a pod.
type PodStatus struct {
	Metadata struct{ DeletionTimestamp string }
	Status   struct {
		Phase, Reason, Message string
		ContainerStatuses      []struct {
			ContainerID  string
			Ready        bool
			RestartCount int
			State        struct {
				Waiting    *struct{ Reason, Message string }
				Running    *struct{ StartedAt string }
				Terminated *struct {
					ExitCode        int
					Reason, Message string
				}
			}
		}
	}
}

// unstartable are the reasons of a container that does not start by waiting.
var unstartable = map[string]bool{"CreateContainerError": true, "CreateContainerConfigError": true, "RunContainerError": true, "CrashLoopBackOff": true}

// stuck is why the container does not start; "" if it may.
func (s *PodStatus) stuck() string {
	for _, container := range s.Status.ContainerStatuses {
		if w := container.State.Waiting; w != nil && unstartable[w.Reason] {
			return w.Reason + ": " + w.Message
		}
		if e := container.State.Terminated; e != nil && e.Reason == "StartError" {
			return e.Reason + ": " + e.Message
		}
	}
	return ""
}

// PodStatus reads the status of a pod.
func (c *Cluster) PodStatus(t testing.TB, p Pod) PodStatus {
	t.Helper()
	var s PodStatus
	if a := c.Get(t, p.path()); !a.Into(t, &s) {
		t.Fatalf("pod %s: %s", p.Name, a)
	}
	return s
}

// StartPod creates a pod and waits until its container runs, has ended, or cannot be
// started, and then returns the reason.
func (c *Cluster) StartPod(t testing.TB, p Pod) (refused string) {
	t.Helper()
	return c.begin(t, p, "Running", "Succeeded", "Failed")
}

// RunPod runs a pod to its end, and returns what its container says, or why it is not
// started. The pod is removed.
func (c *Cluster) RunPod(t testing.TB, p Pod) (said, refused string) {
	t.Helper()
	if refused = c.begin(t, p, "Succeeded", "Failed"); refused == "" {
		said = c.PodLog(t, p)
	}
	c.RemovePod(t, p)
	return said, refused
}

func (c *Cluster) begin(t testing.TB, p Pod, phases ...string) (refused string) {
	t.Helper()
	if a := c.Create(t, p.Object(), ""); !a.OK() {
		return a.Message()
	}
	c.Until(t, fmt.Sprintf("pod %s is one of %v", p.Name, phases), func() (bool, string) {
		s := c.PodStatus(t, p)
		if refused = s.stuck(); refused != "" {
			return true, ""
		}
		for _, phase := range phases {
			if s.Status.Phase == phase {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v\n%s", s.Status, c.Events(t, p.Namespace))
	})
	return refused
}

// PodLog is what the container of a pod has said so far, by way of the kubelet.
func (c *Cluster) PodLog(t testing.TB, p Pod) string {
	t.Helper()
	a := c.Get(t, p.path()+"/log")
	if !a.OK() {
		t.Fatalf("the log of pod %s: %s", p.Name, a)
	}
	return string(a.Body)
}

// RemovePod removes a pod, and waits until it is gone.
func (c *Cluster) RemovePod(t testing.TB, p Pod) {
	t.Helper()
	c.Until(t, "pod "+p.Name+" is gone", func() (bool, string) {
		a := c.Request(t, http.MethodDelete, p.path()+"?gracePeriodSeconds=1", "", nil)
		return a.Status == http.StatusNotFound, a.String()
	})
}

// Events are the last things that happened in a namespace.
func (c *Cluster) Events(t testing.TB, namespace string) (text string) {
	t.Helper()
	var list struct {
		Items []struct {
			Reason, Message string
			InvolvedObject  struct{ Kind, Name string }
		}
	}
	c.Get(t, "/api/v1/namespaces/"+namespace+"/events").Into(t, &list)
	for _, e := range list.Items[max(0, len(list.Items)-10):] {
		text += e.InvolvedObject.Kind + " " + e.InvolvedObject.Name + ": " + e.Reason + ": " + e.Message + "\n"
	}
	return text
}

// Namespace makes a namespace with labels, and its service account, which a
// controller makes otherwise, and later.
func (c *Cluster) Namespace(t testing.TB, name string, labels Object) {
	t.Helper()
	meta := Object{"name": name, "labels": labels}
	for _, o := range []Object{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": meta},
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": Object{"name": "default", "namespace": name}},
	} {
		if a := c.Create(t, o, ""); !a.OK() && a.Status != http.StatusConflict {
			t.Fatalf("%s: %s", o, a)
		}
	}
}
