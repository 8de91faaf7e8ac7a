package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write the bases of Kustomize from the chart")

const (
	chart = "helm/afalg-policy"
	// none is the image of the bases: no registry has it, so an overlay must name one.
	none   = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	digest = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	image  = "ghcr.io/afalg-policy/afalg-policy"
)

var modes = []string{"nri", "files", "host", "remove"}

// renderer is the program in testdata/kubernetes/render, built once.
var renderer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "render")
	if err != nil {
		return "", err
	}
	built = dir
	program := filepath.Join(dir, "render")
	build := exec.Command("go", "build", "-C", "../testdata/kubernetes", "-trimpath", "-ldflags=-s -w", "-o", program, "./render")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the renderers: %w\n%s", err, out)
	}
	return program, nil
})

// built is where the renderer lies, once it was asked for.
var built string

func TestMain(m *testing.M) {
	status := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(status)
}

// render runs the renderer. The error has what it wrote to standard error.
func render(t *testing.T, in []byte, args ...string) ([]byte, error) {
	t.Helper()
	program, err := renderer()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := exec.Command(program, args...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%w: %s", err, &stderr)
	}
	return stdout.Bytes(), nil
}

// valuesFile writes values for the chart.
func valuesFile(t *testing.T, values map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func pinned(digest string) map[string]any { return map[string]any{"digest": digest} }

// helm renders the chart.
func helm(t *testing.T, values map[string]any) []byte {
	t.Helper()
	out, err := render(t, nil, "helm", chart, valuesFile(t, values))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// policyName is what each renderer appends a digest of its own to.
var policyName = regexp.MustCompile(`afalg-policy-policy-[0-9a-z]{10}\b`)

// objects parses objects, by kind and name.
func objects(t *testing.T, text []byte) map[string]any {
	t.Helper()
	all := map[string]any{}
	d := yaml.NewDecoder(bytes.NewReader(policyName.ReplaceAll(text, []byte("afalg-policy-policy"))))
	for {
		var o map[string]any
		if d.Decode(&o) != nil {
			break
		}
		if o == nil {
			continue
		}
		key := fmt.Sprint(o["kind"], " ", o["metadata"].(map[string]any)["name"])
		if all[key] != nil {
			t.Fatalf("%s is there twice", key)
		}
		all[key] = o
	}
	if len(all) == 0 {
		t.Fatalf("no objects in %s", text)
	}
	return all
}

// TestClusterBases: what the bases of Kustomize are made of is what the chart renders.
func TestClusterBases(t *testing.T) {
	files := map[string][]byte{}
	for _, mode := range modes {
		files[mode] = base(helm(t, map[string]any{"mode": mode, "image": pinned(none)}), nil)
	}
	plain := objects(t, files["nri"])
	more := func(values map[string]any) []byte {
		values["image"] = pinned(none)
		return base(helm(t, values), plain)
	}
	files["components/node-update"] = more(map[string]any{"nodeUpdate": map[string]any{"enabled": true}})
	files["components/pod-monitor"] = more(map[string]any{"podMonitor": map[string]any{"enabled": true}})
	for dir, want := range files {
		name := filepath.Join("kustomize", dir, "objects.yaml")
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Error(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the chart renders: %v\n%s\nrun go test ./deploy -run TestClusterBases -update", name, err, cmp.Diff(string(want), string(got)))
		}
	}
}

// base takes the policy out, which Kustomize generates, and what is elsewhere.
func base(text []byte, elsewhere map[string]any) []byte {
	out := []byte("# Made from deploy/helm/afalg-policy; do not edit.\n")
	for _, document := range strings.Split(string(policyName.ReplaceAll(text, []byte("afalg-policy-policy"))), "---\n") {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if yaml.Unmarshal([]byte(document), &o) != nil || o.Kind == "" || o.Kind == "ConfigMap" || elsewhere[o.Kind+" "+o.Metadata.Name] != nil {
			continue
		}
		out = append(out, "---\n"+document...)
	}
	return out
}

const ownPolicy = "version: 1\nname: mine\ncontainers:\n  unconfined: refuse\n"

// TestClusterSame: helm with values, and Kustomize with an overlay that says the same,
// render the same objects.
func TestClusterSame(t *testing.T) {
	type choice struct{ node, monitor, own bool }
	for _, mode := range modes {
		for _, c := range []choice{{}, {node: true}, {own: true}, {node: true, own: true, monitor: mode == "nri"}} {
			t.Run(fmt.Sprint(mode, c), func(t *testing.T) {
				values := map[string]any{
					"mode": mode, "image": pinned(digest),
					"nodeUpdate": map[string]any{"enabled": c.node}, "podMonitor": map[string]any{"enabled": c.monitor},
				}
				own := c.own && mode != "remove"
				if own {
					values["policy"] = ownPolicy
				}
				out, err := render(t, nil, "kustomize", overlay(t, mode, c.node, c.monitor, own))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(objects(t, helm(t, values)), objects(t, out)); diff != "" {
					t.Errorf("helm (-) and Kustomize (+) differ:\n%s", diff)
				}
			})
		}
	}
}

// overlay writes what a user writes.
func overlay(t *testing.T, mode string, node, monitor, own bool) string {
	t.Helper()
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	at, err := filepath.Rel(dir, filepath.Join(here, "kustomize"))
	if err != nil {
		t.Fatal(err)
	}
	k := map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": []string{at + "/" + mode},
		"images":    []any{map[string]string{"name": image, "digest": digest}},
	}
	var components []string
	if node {
		components = append(components, at+"/components/node-update")
	}
	if monitor {
		components = append(components, at+"/components/pod-monitor")
	}
	if components != nil {
		k["components"] = components
	}
	if own {
		k["configMapGenerator"] = []any{map[string]any{
			"name": "afalg-policy-policy", "namespace": "afalg-policy", "behavior": "replace",
			"files": []string{"policy.yaml"}, "options": map[string]any{"immutable": true},
		}}
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(ownPolicy), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := yaml.Marshal(k)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// finding is what Kubernetes' own code says of one object.
type finding struct {
	Kind, Name string
	Unknown    bool
	Errors     []string
	Level      string
	Above      []string
}

// TestClusterKubernetes: Kubernetes takes each object as it stands, with no unknown field.
// Below the level of our namespace, Pod Security refuses a pod that mounts what ours
// mount: which is why no pod of another namespace reaches the agent's sockets.
func TestClusterKubernetes(t *testing.T) {
	for _, mode := range modes {
		values := map[string]any{
			"mode": mode, "image": pinned(digest), "nodeUpdate": map[string]any{"enabled": true},
			"podMonitor": map[string]any{"enabled": mode == "nri"},
		}
		out, err := render(t, helm(t, values), "check")
		if err != nil {
			t.Fatal(err)
		}
		var found []finding
		if err := json.Unmarshal(out, &found); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, f := range found {
			seen[f.Kind] = true
			if f.Errors != nil || f.Unknown != (f.Kind == "PodMonitor") {
				t.Errorf("%s: %s %s: unknown=%v %v", mode, f.Kind, f.Name, f.Unknown, f.Errors)
			}
			if f.Kind == "DaemonSet" && (f.Level != "privileged" || !strings.Contains(strings.Join(f.Above, "; "), "hostPath")) {
				t.Errorf("%s: Pod Security's level is %s, because of %q: the namespace says privileged, because of hostPath", mode, f.Level, f.Above)
			}
		}
		for _, kind := range []string{"DaemonSet", "Namespace", "ServiceAccount", "ClusterRole", "ValidatingAdmissionPolicy"} {
			if !seen[kind] {
				t.Errorf("%s: no %s among %v", mode, kind, slices.Collect(maps.Keys(seen)))
			}
		}
	}
}

// TestClusterLint: helm lint has nothing to say.
func TestClusterLint(t *testing.T) {
	out, err := render(t, nil, "lint", chart, valuesFile(t, map[string]any{"image": pinned(digest)}))
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestClusterRefused: values that would open something, or that mean nothing, are errors
// that say what to do.
func TestClusterRefused(t *testing.T) {
	for _, tt := range []struct {
		values map[string]any
		want   string
	}{
		{nil, "image.digest is missing: set it to the sha256:"},
		{map[string]any{"image": map[string]any{"tag": "latest"}}, "a tag names no fixed image"},
		{map[string]any{"image": pinned("sha256:12")}, "digest"},
		{map[string]any{"image": pinned(digest), "mode": "NRI"}, "mode"},
		{map[string]any{"image": pinned(digest), "nriDirectory": "/run/nri"}, "nriDirectory"},
		{map[string]any{"image": pinned(digest), "host": map[string]any{"platforms": []string{"docker"}}}, "platforms"},
		{map[string]any{"image": pinned(digest), "mode": "files", "podMonitor": map[string]any{"enabled": true}}, "only mode nri has metrics"},
		{map[string]any{"image": map[string]any{"repository": "x\n  y: z", "digest": digest}}, "repository"},
	} {
		out, err := render(t, nil, "helm", chart, valuesFile(t, tt.values))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v\n%s", tt.values, err, out)
		}
	}
}
