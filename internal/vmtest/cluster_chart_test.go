//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/testing/cluster"
)

// chartTest is the chart on the cluster, as helm installs it.
type chartTest struct {
	*clusterTest
	render string            // the program that renders it
	images map[string]string // digests of our own images, by their names
	last   []byte            // what is installed
}

// Our own image, and the next version of it.
const (
	firstImage  = "first"
	secondImage = "second"
)

const repository = "localhost/afalg-policy"

func (c *clusterTest) testChart(t *testing.T) {
	chart := &chartTest{clusterTest: c, images: map[string]string{}}
	chart.render = filepath.Join(t.TempDir(), "render")
	build := exec.Command("go", "build", "-C", "../../testdata/kubernetes", "-trimpath", "-ldflags=-s -w", "-o", chart.render, "./render")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	chart.loadImages(t)
	before := chart.snapshot(t)
	for _, mode := range []struct {
		name string
		use  func(*testing.T)
	}{{"nri", chart.testNRI}, {"files", chart.testFiles}} {
		c.step(t, mode.name, mode.use)
		c.step(t, mode.name+", uninstalled", func(t *testing.T) {
			chart.uninstall(t)
			if d := cmp.Diff(before, chart.snapshot(t)); d != "" {
				t.Errorf("the node, -before +after:\n%s", d)
			}
			c.testOpen(t)
		})
	}
}

// loadImages gives the node our images, under names with their digests.
func (c *chartTest) loadImages(t *testing.T) {
	t.Helper()
	binary, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	var layer tarball
	layer.file("afalg-policy", 0o755, binary)
	archive, _ := imagesOf(t, layer.finish(t), map[string]map[string]any{
		firstImage: {}, secondImage: {"Labels": map[string]string{"version": "next"}},
	})
	c.Load(t, archive)
	for _, name := range []string{firstImage, secondImage} {
		line := c.Output(t, "ctr", "--namespace=k8s.io", "image", "list", "name=="+imageName(name))
		i := strings.Index(line, "sha256:")
		if i < 0 {
			t.Fatalf("the image %s is not there: %s", name, line)
		}
		c.images[name] = strings.Fields(line[i:])[0]
		c.Output(t, "ctr", "--namespace=k8s.io", "image", "tag", imageName(name), repository+"@"+c.images[name])
	}
}

// install installs the chart, or changes its values, and waits until the node is
// ready.
func (c *chartTest) install(t *testing.T, mode, image, policy string, more map[string]any) {
	t.Helper()
	values := map[string]any{
		"mode": mode, "policy": policy, "nodeUpdate": map[string]any{"enabled": true}, "maxUpdating": 1,
		"image": map[string]any{"repository": repository, "digest": c.images[image], "pullPolicy": "Never"},
	}
	for key, value := range more {
		values[key] = value
	}
	file := filepath.Join(t.TempDir(), "values.yaml") // YAML is JSON, too
	text, err := json.Marshal(values)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	render := exec.Command(c.render, "helm", "../../deploy/helm/afalg-policy", file)
	render.Stderr = os.Stderr
	manifest, err := render.Output()
	if err != nil {
		t.Fatalf("%v: %v", render.Args, err)
	}
	c.Apply(t, manifest)
	c.last = manifest
	c.Until(t, "the DaemonSet is rolled out", func() (bool, string) {
		var set struct {
			Metadata struct{ Generation int }
			Status   struct{ ObservedGeneration, DesiredNumberScheduled, UpdatedNumberScheduled, CurrentNumberScheduled, NumberReady, NumberUnavailable int }
		}
		a := c.Get(t, "/apis/apps/v1/namespaces/"+kube.Namespace+"/daemonsets/afalg-policy")
		a.Into(t, &set)
		s := set.Status
		pods := c.ours(t)
		return s.ObservedGeneration == set.Metadata.Generation && s.DesiredNumberScheduled == 1 && s.UpdatedNumberScheduled == 1 && s.NumberReady == 1 && len(pods) == 1,
			fmt.Sprintf("%s\n%v\n%s", a, pods, c.Events(t, kube.Namespace))
	})
}

// ours are the names of our pods.
func (c *chartTest) ours(t *testing.T) (names []string) {
	t.Helper()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	c.Get(t, "/api/v1/namespaces/"+kube.Namespace+"/pods").Into(t, &list)
	for _, pod := range list.Items {
		names = append(names, pod.Metadata.Name)
	}
	return names
}

// uninstall removes what was installed, as helm does.
func (c *chartTest) uninstall(t *testing.T) {
	t.Helper()
	c.Delete(t, c.last)
	c.unmark(t)
}

// nodePath is that of the node.
const nodePath = "/api/v1/nodes/node1"

// taint keeps pods away from the node until it is closed.
func (c *chartTest) taint(t *testing.T) {
	t.Helper()
	c.patchNode(t, `{"spec": {"taints": [{"key": "`+kube.TaintOpen+`", "effect": "NoSchedule"}]}}`)
}

// unmark takes off what the cluster keeps of a node: no pod of ours is left to do so.
func (c *chartTest) unmark(t *testing.T) {
	t.Helper()
	c.patchNode(t, `{"metadata": {"labels": {"`+kube.LabelClosed+`": null}}}`)
}

func (c *chartTest) patchNode(t *testing.T, patch string) {
	t.Helper()
	if a := c.Request(t, http.MethodPatch, nodePath, "application/merge-patch+json", []byte(patch)); !a.OK() {
		t.Fatal(a)
	}
}

// marked waits until the cluster is told that the node is closed.
func (c *chartTest) marked(t *testing.T) {
	t.Helper()
	c.Until(t, "the node is marked", func() (bool, string) {
		var node struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct{ Taints []struct{ Key string } }
		}
		a := c.Get(t, nodePath)
		a.Into(t, &node)
		for _, taint := range node.Spec.Taints {
			if taint.Key == kube.TaintOpen {
				return false, "the taint is there"
			}
		}
		return node.Metadata.Labels[kube.LabelClosed] == "true", fmt.Sprint(node.Metadata.Labels)
	})
}

// snapshot lists the files of the node that we could change, with their content. The
// agent's directory in /run stays until the next boot, and the directories that the
// kubelet made to mount them stay, empty.
func (c *chartTest) snapshot(t *testing.T) string {
	t.Helper()
	return c.Output(t, "sh", "-c", `cd / && set -- etc opt usr/local/bin usr/local/sbin var/lib/afalg-policy var/lib/kubelet/seccomp run/nri
find "$@" -mindepth 1 -printf '%p %y %m %U:%G %l\n' 2>/dev/null | sort
find "$@" -type f -exec sha256sum {} + 2>/dev/null | sort`)
}

// testWaiting shows that a pod waits until the node is closed, and starts then.
func (c *chartTest) testWaiting(t *testing.T, install func(*testing.T)) {
	c.taint(t)
	p := c.pod("default", nil)
	p.Scheduled = true
	if a := c.Create(t, p.Object(), ""); !a.OK() {
		t.Fatal(a)
	}
	c.Until(t, "the pod is not scheduled", func() (bool, string) {
		text := c.Events(t, "default")
		return strings.Contains(text, p.Name+": FailedScheduling"), text
	})
	install(t)
	c.marked(t)
	c.Until(t, "the pod has run", func() (bool, string) {
		s := c.PodStatus(t, p)
		return s.Status.Phase == "Succeeded", fmt.Sprintf("%+v\n%s", s, c.Events(t, "default"))
	})
	if said := c.PodLog(t, p); !strings.HasPrefix(said, "Seccomp:\t2\nsocket\tclosed\n") {
		t.Errorf("the pod that waited says %q", said)
	}
	c.RemovePod(t, p)
}

func (c *chartTest) testNRI(t *testing.T) {
	policy := string(clusterPolicy(t, "harden"))
	c.testWaiting(t, func(t *testing.T) { c.install(t, "nri", firstImage, policy, nil) })
	c.step(t, "closed", c.testClosed)

	client := cluster.Pod{Namespace: granting, Name: "client", Image: imageName(""), Script: askAgain}
	if refused := c.StartPod(t, client); refused != "" {
		t.Fatal(refused)
	}
	c.answered(t, client, "at first")
	c.step(t, "upgrade", func(t *testing.T) {
		c.install(t, "nri", secondImage, policy, nil)
		c.answered(t, client, "after an upgrade")
		c.testClosed(t)
	})
	c.step(t, "crash", func(t *testing.T) {
		c.kill(t)
		c.answered(t, client, "after a crash of the agent")
		c.testClosed(t)
	})
	c.RemovePod(t, client)
	c.step(t, "another policy", func(t *testing.T) {
		none := strings.Replace(policy, "namespaces: ["+granting+"]", "namespaces: [other]", 1)
		c.install(t, "nri", secondImage, none, nil)
		c.looks(t, "granted before", c.pod(granting, nil), false)
	})
}

// askAgain asks for a socket of AF_ALG, again and again. Where the kernel has none,
// the agent of a granted container answers with EAFNOSUPPORT, 97. Nobody answers with
// ENOSYS, 38, but a kernel whose listener is gone.
const askAgain = `while :; do
  printf key | kcapi-dgst -c 'hmac(sha512)' --keyfd 0 --hex -i /etc/debian_version 2>&1
  sleep 1
done`

// answered waits until a client has asked anew, and looks at all that it was told.
func (c *chartTest) answered(t *testing.T, client cluster.Pod, when string) {
	t.Helper()
	before := strings.Count(c.PodLog(t, client), "\n")
	c.Until(t, "the client asks "+when, func() (bool, string) {
		said := c.PodLog(t, client)
		return strings.Count(said, "\n") > before+2, said
	})
	if other := strings.ReplaceAll(c.PodLog(t, client), noSocket, ""); other != "" {
		t.Errorf("%s: the client hears %q", when, other)
	}
}

// kill kills the agent, but not its parent, which keeps its listeners.
func (c *chartTest) kill(t *testing.T) {
	t.Helper()
	agent := strings.TrimSpace(c.Output(t, "pgrep", "--newest", "--full", "^/afalg-policy agent /etc/"))
	c.Output(t, "kill", "-9", agent)
}

func (c *chartTest) testFiles(t *testing.T) {
	policy := string(clusterPolicy(t, "harden"))
	c.testWaitingFiles(t, policy)
	p := c.pod("default", cluster.Object{"seccompProfile": cluster.Object{"type": "Localhost", "localhostProfile": kube.DefaultProfile}})
	c.looks(t, "with our file", p, false)
	c.install(t, "remove", firstImage, policy, map[string]any{"remove": map[string]any{"from": "files"}})
}

// testWaitingFiles: the mode closes nothing to a pod that names no file.
func (c *chartTest) testWaitingFiles(t *testing.T, policy string) {
	t.Helper()
	c.taint(t)
	c.install(t, "files", firstImage, policy, nil)
	c.marked(t)
}
