//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/cluster"
)

// clusterTest is a cluster of one node under test.
type clusterTest struct {
	*cluster.Cluster
	kernel *platformTest // what this kernel answers without a container
	pods   int           // so far
}

// TestCluster has the program on a real cluster, from the first look to the last.
func TestCluster(t *testing.T) {
	archive, _ := imagesOf(t, baseLayer(t, map[string]string{"afalg-policy": program(t)}), images)
	begun := time.Now()
	c := &clusterTest{Cluster: cluster.Start(t, "../..", archive)}
	t.Logf("the node is ready after %v", time.Since(begun).Round(time.Second))
	c.Output(t, "install", "-D", program(t), installed)
	c.kernel = &platformTest{vm: c.Machine}
	c.kernel.askKernel(t)
	c.Namespace(t, "default", nil)
	c.Namespace(t, granting, nil)
	c.step(t, "before", c.testOpen)
	c.step(t, "chart", c.testChart)
	c.step(t, "after", c.testOpen)
}

// step is one step of the test, with the time that it takes. What follows builds on
// it.
func (c *clusterTest) step(t *testing.T, name string, do func(*testing.T)) {
	t.Helper()
	begun := time.Now()
	if !t.Run(name, do) {
		t.FailNow()
	}
	t.Logf("%s: %v", name, time.Since(begun).Round(time.Second/10))
}

// pod is a pod with a name of its own, which looks for AF_ALG.
func (c *clusterTest) pod(namespace string, security cluster.Object) cluster.Pod {
	c.pods++
	return cluster.Pod{Namespace: namespace, Name: fmt.Sprint("pod-", c.pods), Image: imageName(""), Script: askInPod, Container: security}
}

// askInPod prints whether there is a filter, and a line for each route.
const askInPod = `grep ^Seccomp: /proc/self/status
/afalg-policy probe 2>/dev/null | cut -f 1,2`

// containers are the security contexts of containers that their pod may have, by
// what it asks for.
var containers = map[string]cluster.Object{
	"ordinary":   nil,
	"unconfined": {"seccompProfile": cluster.Object{"type": "Unconfined"}},
	privileged:   {"privileged": true},
}

// testOpen shows that the kubelet and containerd close nothing by themselves.
func (c *clusterTest) testOpen(t *testing.T) {
	for name, security := range containers {
		c.looks(t, name, c.pod("default", security), true)
	}
}

func (c *clusterTest) testClosed(t *testing.T) {
	for name, security := range containers {
		c.looks(t, name, c.pod("default", security), false)
	}
}

// looks runs a pod that finds every route open, as far as the kernel has it, or
// closed.
func (c *clusterTest) looks(t *testing.T, what string, p cluster.Pod, open bool) {
	t.Helper()
	said, refused := c.RunPod(t, p)
	mode := map[bool]string{true: "0", false: "2"}[open]
	want := "Seccomp:\t" + mode + "\n" + c.kernel.seen(c.kernel.verdicts(open))
	if d := cmp.Diff(want, c.kernel.seen(said)); d != "" || refused != "" {
		t.Errorf("%s: refused %q, -want +got:\n%s", what, strings.TrimSpace(refused), d)
	}
}
