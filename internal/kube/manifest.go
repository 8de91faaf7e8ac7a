package kube

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// Place is where something stands in a text, both from 1; the column counts
// characters.
type Place struct{ Line, Column int }

// Object is an object of Kubernetes.
type Object struct {
	Place
	Kind      string
	Namespace string // "" if the text says none
	Name      string
}

// String names the object as kubectl does, with its namespace.
func (o Object) String() string {
	name := cmp.Or(o.Name, "(without a name)")
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return o.Kind + " " + name
}

// Workload is an object with a pod in it, or with the template of one.
type Workload struct {
	Object
	// Windows says that no kubelet on Linux runs the pod.
	Windows    bool
	Containers []Container
}

// Binding is a ProfileBinding of the Security Profiles Operator: its webhook gives
// the containers of an image a profile, in namespaces that have its label.
type Binding struct {
	Object
	Image       string
	ProfileKind string
	Profile     string // its name
}

// Manifest is what a text says.
type Manifest struct {
	Workloads []Workload
	Bindings  []Binding
	Others    []Object // no pod is in them
	Foreign   int      // documents that are no objects of Kubernetes
}

// Profiles counts the objects that are profiles of the Security Profiles Operator.
func (m *Manifest) Profiles() (n int) {
	for _, o := range m.Others {
		if o.Kind == "SeccompProfile" {
			n++
		}
	}
	return n
}

// Read reads a text in YAML or JSON that anybody may have written: objects of
// Kubernetes, lists of them, several documents. A text that programs read in
// different ways, or with a pod that no API server takes, is an error that begins
// with line:col.
func Read(src []byte) (*Manifest, error) {
	all, foreign, err := documents(src)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Foreign: foreign}
	for _, d := range all {
		if err := m.add(d, "", ""); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// header is what every object has.
type header struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Annotations map[string]string `json:"annotations"`
}

// add reads the object at a pointer. The items of a list of one kind need not say it.
func (m *Manifest) add(d *document, pointer, listed string) error {
	var h header
	if err := d.decode(pointer, &h); err != nil {
		return err
	}
	h.Kind = cmp.Or(h.Kind, listed)
	if h.Kind == "" {
		return d.failAt(pointer, "an object without a kind")
	}
	if base, is := strings.CutSuffix(h.Kind, "List"); is && d.root.Find(pointer+"/items") != nil {
		return m.addItems(d, pointer+"/items", base)
	}
	object := Object{d.at(pointer), h.Kind, h.Metadata.Namespace, h.Metadata.Name}
	if h.Kind == "ProfileBinding" {
		return m.addBinding(d, pointer, object)
	}
	template, is := templateOf(d, pointer, h)
	if !is {
		m.Others = append(m.Others, object)
		return nil
	}
	w := Workload{Object: object}
	if err := w.read(d, template); err != nil {
		return err
	}
	m.Workloads = append(m.Workloads, w)
	return nil
}

func (m *Manifest) addItems(d *document, pointer, kind string) error {
	items := d.root.Find(pointer)
	if l, ok := items.Value.(hujson.Literal); ok && l.Kind() == 'n' {
		return nil
	}
	list, ok := items.Value.(*hujson.Array)
	if !ok {
		return d.failAt(pointer, "items is no list")
	}
	for i := range list.Elements {
		if err := m.add(d, pointer+"/"+strconv.Itoa(i), kind); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) addBinding(d *document, pointer string, object Object) error {
	var spec struct {
		Image      string `json:"image"`
		ProfileRef struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"profileRef"`
	}
	if err := d.decode(pointer+"/spec", &spec); err != nil {
		return err
	}
	m.Bindings = append(m.Bindings, Binding{object, spec.Image, spec.ProfileRef.Kind, spec.ProfileRef.Name})
	return nil
}

// kinds says where pods are in the objects of Kubernetes.
var kinds = []struct{ kind, group, template string }{
	{"Pod", "", ""},
	{"PodTemplate", "", "/template"},
	{"ReplicationController", "", "/spec/template"},
	{"Deployment", "apps extensions", "/spec/template"},
	{"DaemonSet", "apps extensions", "/spec/template"},
	{"StatefulSet", "apps", "/spec/template"},
	{"ReplicaSet", "apps extensions", "/spec/template"},
	{"Job", "batch", "/spec/template"},
	{"CronJob", "batch", "/spec/jobTemplate/spec/template"},
}

// templateOf finds the pod of an object. Kinds of others are read where they have a
// template in the place in which a Deployment has one.
func templateOf(d *document, pointer string, h header) (string, bool) {
	group, _, grouped := strings.Cut(h.APIVersion, "/")
	if !grouped {
		group = ""
	}
	for _, k := range kinds {
		if k.kind == h.Kind && slices.Contains(strings.Split(k.group, " "), group) {
			return pointer + k.template, true
		}
	}
	template := pointer + "/spec/template"
	return template, d.root.Find(template+"/spec/containers") != nil
}

// errNoContainers is that of a pod in which nothing runs.
var errNoContainers = errors.New("the pod has no containers: if this is a patch, render it first, as with kubectl kustomize DIR | afalg-policy verify -")
