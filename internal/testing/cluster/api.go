package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// client talks to the API server by a socket that the box shares with the host.
func client(socket string, trust *tls.Config) *http.Client {
	var dialer net.Dialer
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: trust,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
}

// Answer is what the API server answers.
type Answer struct {
	Status   int
	Warnings []string
	Body     []byte
}

// OK reports whether the request did what it asks for.
func (a Answer) OK() bool { return a.Status/100 == 2 }

func (a Answer) String() string {
	return fmt.Sprintf("%d %s %s", a.Status, strings.Join(a.Warnings, "; "), a.Message())
}

// Message is the reason of a refusal, or the body.
func (a Answer) Message() string {
	var status struct{ Kind, Message string }
	if json.Unmarshal(a.Body, &status) == nil && status.Kind == "Status" {
		return status.Message
	}
	return string(a.Body)
}

// Into decodes an object, if the answer is one.
func (a Answer) Into(t testing.TB, v any) bool {
	t.Helper()
	if !a.OK() {
		return false
	}
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
	return true
}

func (c *Cluster) try(ctx context.Context, method, path, mediaType string, body []byte) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+apiAddress+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := c.api.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	a := Answer{Status: response.StatusCode}
	for _, header := range response.Header.Values("Warning") {
		_, text, _ := strings.Cut(header, `"`) // 299 - "text"
		a.Warnings = append(a.Warnings, strings.TrimSuffix(text, `"`))
	}
	a.Body, err = io.ReadAll(response.Body)
	return a, err
}

// Request asks the API server. The test fails if that does not answer.
func (c *Cluster) Request(t testing.TB, method, path, mediaType string, body []byte) Answer {
	t.Helper()
	a, err := c.try(t.Context(), method, path, mediaType, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Get reads an object, or a list.
func (c *Cluster) Get(t testing.TB, path string) Answer {
	t.Helper()
	return c.Request(t, http.MethodGet, path, "", nil)
}

// Object is one object of a manifest.
type Object map[string]any

// Objects reads a manifest in YAML.
func Objects(text []byte) ([]Object, error) {
	var all []Object
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var object Object
		switch err := decoder.Decode(&object); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case object != nil:
			all = append(all, object)
		}
	}
}

// Text returns a value that is a text, by the keys that lead to it; "" if there is
// none.
func (o Object) Text(keys ...string) string {
	var value any = map[string]any(o)
	for _, key := range keys {
		switch inner := value.(type) {
		case map[string]any:
			value = inner[key]
		case Object:
			value = inner[key]
		default:
			return ""
		}
	}
	text, _ := value.(string)
	return text
}

func (o Object) String() string {
	return strings.Trim(o.Text("kind")+" "+o.Text("metadata", "namespace")+"/"+o.Text("metadata", "name"), "/")
}

// kind is one of the kinds of a group's version.
type kind struct {
	Kind       string
	Name       string // in paths
	Namespaced bool
}

// path returns that of the object's collection.
func (c *Cluster) path(ctx context.Context, o Object) (string, error) {
	version := o.Text("apiVersion")
	base := "/apis/" + version
	if !strings.Contains(version, "/") {
		base = "/api/" + version
	}
	named := func(k kind) bool { return k.Kind == o.Text("kind") && !strings.Contains(k.Name, "/") }
	i := slices.IndexFunc(c.kinds[base], named)
	if i < 0 {
		a, err := c.try(ctx, http.MethodGet, base, "", nil)
		if err != nil {
			return "", err
		}
		var list struct{ Resources []kind }
		if err := json.Unmarshal(a.Body, &list); err != nil {
			return "", err
		}
		c.kinds[base] = list.Resources
		if i = slices.IndexFunc(list.Resources, named); i < 0 {
			return "", fmt.Errorf("%s has no kind %s", base, o.Text("kind"))
		}
	}
	k := c.kinds[base][i]
	if !k.Namespaced {
		return base + "/" + k.Name, nil
	}
	namespace := o.Text("metadata", "namespace")
	if namespace == "" {
		namespace = "default"
	}
	return base + "/namespaces/" + namespace + "/" + k.Name, nil
}

// send sends an object to its collection, or to its own path below that.
func (c *Cluster) send(t testing.TB, method string, o Object, own bool, query, mediaType string) Answer {
	t.Helper()
	path, err := c.path(t.Context(), o)
	if err != nil {
		return Answer{Body: []byte(err.Error())}
	}
	if own {
		path += "/" + o.Text("metadata", "name")
	}
	var body []byte
	if method != http.MethodDelete {
		if body, err = json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	}
	return c.Request(t, method, path+query, mediaType, body)
}

// Create creates an object. The query is empty, or begins with a question mark.
func (c *Cluster) Create(t testing.TB, o Object, query string) Answer {
	t.Helper()
	return c.send(t, http.MethodPost, o, false, query, "application/json")
}

// Apply brings about the objects of a manifest as kubectl apply --server-side does.
// A kind may come into being a moment after its definition.
func (c *Cluster) Apply(t testing.TB, manifest []byte) {
	t.Helper()
	objects, err := Objects(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		c.Until(t, "the server takes "+o.String(), func() (bool, string) {
			a := c.send(t, http.MethodPatch, o, true, "?fieldManager=test&force=true&fieldValidation=Strict", "application/apply-patch+yaml")
			if a.Status == http.StatusBadRequest || a.Status == http.StatusUnprocessableEntity {
				t.Fatalf("%s: %s", o, a.Message())
			}
			return a.OK(), a.String()
		})
	}
}

// Delete removes the objects of a manifest, the last one first, and waits until they
// are gone.
func (c *Cluster) Delete(t testing.TB, manifest []byte) {
	t.Helper()
	objects, err := Objects(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range slices.Backward(objects) {
		c.Until(t, o.String()+" is gone", func() (bool, string) {
			a := c.send(t, http.MethodDelete, o, true, "?propagationPolicy=Background&gracePeriodSeconds=1", "")
			return a.Status == http.StatusNotFound, a.String()
		})
	}
}
