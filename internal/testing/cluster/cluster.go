// Package cluster starts a Kubernetes cluster of one node in a box: etcd, the API
// server, the controller manager, the scheduler, containerd 2 and a kubelet, all of
// them real.
package cluster

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
)

// Cluster is a running cluster, and the box it runs in. Its methods may not be
// called at the same time.
type Cluster struct {
	*machine.Machine
	api      *http.Client
	kinds    map[string][]kind // of the versions of groups, as the server lists them
	programs string
}

// Start starts a cluster with the images of an archive, as its administrator. root is
// that of the repository, from the test. It ends with the test.
func Start(t testing.TB, root, images string) *Cluster {
	t.Helper()
	runtime := t.TempDir()
	if err := buildContainerd(root, runtime); err != nil {
		t.Fatal(err)
	}
	c := prepare(t, root)
	c.write(t, kubelet(c.programs))
	c.Output(t, "sh", "-ec", "install "+runtime+"/* /usr/bin")
	c.startServices(t, controlPlane(c.programs))
	c.startNode(t, images)
	return c
}

// StartAPI starts an API server alone, which no node asks and no controller.
func StartAPI(t testing.TB, root string) *Cluster {
	t.Helper()
	c := prepare(t, root)
	c.startServices(t, controlPlane(c.programs)[:2])
	return c
}

// prepare starts the box, with all files.
func prepare(t testing.TB, root string) *Cluster {
	t.Helper()
	programs, err := kubernetesPrograms(root)
	if err != nil {
		t.Fatal(err)
	}
	m, shared := box.StartNode(t)
	c := &Cluster{Machine: m, kinds: map[string][]kind{}, programs: programs}
	t.Cleanup(func() {
		if t.Failed() {
			c.logState(t)
		}
	})
	c.Output(t, "mkdir", "-p", logDir)
	if c.api, err = c.writeIdentities(t, filepath.Join(shared, filepath.Base(apiSocket))); err != nil {
		t.Fatal(err)
	}
	for name, text := range proxyUnits {
		c.WriteFile(t, "/etc/systemd/system/"+name, []byte(text), 0o644)
	}
	for name, text := range map[string]string{
		"/etc/systemd/system/containerd.service.d/log.conf": fmt.Sprintf("[Service]\nStandardOutput=append:%[1]s/containerd\nStandardError=append:%[1]s/containerd\n", logDir),
		"/etc/containerd/config.toml":                       containerdConfig,
		"/etc/cni/net.d/10-pods.conflist":                   podNetwork,
		stateDir + "/kubelet.yaml":                          kubeletConfig,
		stateDir + "/audit.yaml":                            auditPolicy,
	} {
		c.WriteFile(t, name, []byte(text), 0o644)
	}
	return c
}

// writeIdentities writes all keys and certificates, and returns the administrator's
// client.
func (c *Cluster) writeIdentities(t testing.TB, socket string) (*http.Client, error) {
	t.Helper()
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	private, public, err := tokenKeys()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"ca.crt": ca.pem(), "sa.key": private, "sa.pub": public}
	var admin pair
	for name, who := range map[string]struct {
		subject   pkix.Name
		addresses []string
	}{
		"apiserver":          {pkix.Name{CommonName: "kube-apiserver"}, []string{apiAddress, nodeAddress, "127.0.0.1", "kubernetes.default.svc"}},
		"controller-manager": {pkix.Name{CommonName: "system:kube-controller-manager"}, nil},
		"scheduler":          {pkix.Name{CommonName: "system:kube-scheduler"}, nil},
		"node":               {pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}, []string{nodeName, nodeAddress}},
		"admin":              {pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, nil},
	} {
		p, err := ca.issue(who.subject, who.addresses...)
		if err != nil {
			return nil, err
		}
		files[name+".crt"], files[name+".key"], files[name+".kubeconfig"] = p.cert, p.key, []byte(kubeconfig(name))
		if name == "admin" {
			admin = p
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c.WriteFile(t, stateDir+"/"+name, files[name], 0o600)
	}
	trust, err := ca.trust(admin)
	return client(socket, trust), err
}

// startServices waits until the API server is ready. The loopback has the addresses
// of the node and of the API server.
func (c *Cluster) startServices(t testing.TB, services []service) {
	t.Helper()
	c.Output(t, "sh", "-ec", "ip link set lo up; ip addr add "+nodeAddress+"/32 dev lo; ip addr add "+apiAddress+"/32 dev lo")
	for _, s := range services {
		c.write(t, s)
	}
	c.Output(t, "systemctl", "daemon-reload")
	c.Output(t, "systemctl", "start", "api.socket")
	for _, s := range services {
		c.Output(t, "systemctl", "start", s.name)
	}
	c.Until(t, "the API server is ready", func() (bool, string) {
		a, err := c.try(t.Context(), http.MethodGet, "/readyz?verbose", "", nil)
		if err != nil {
			return false, err.Error()
		}
		return a.Status == http.StatusOK, string(a.Body)
	})
}

// write writes the unit of a service.
func (c *Cluster) write(t testing.TB, s service) {
	t.Helper()
	if _, err := os.Stat(s.args[0]); err != nil {
		t.Fatalf("%v: run scripts/install kubernetes", err)
	}
	c.WriteFile(t, "/etc/systemd/system/"+s.name+".service", []byte(s.unit()), 0o644)
}

// startNode waits until the node is ready. What containerd and the kubelet keep is on
// file systems that have layers and shared mounts.
func (c *Cluster) startNode(t testing.TB, images string) {
	t.Helper()
	c.Output(t, "sh", "-ec", `for dir in /var/lib/containerd `+kubeletDir+`; do
  mkdir -p $dir
  mount -t tmpfs -o mode=711 node $dir
  mount --make-rshared $dir
done
[ -e /dev/kmsg ] || mknod /dev/kmsg c 1 11`)
	for name, value := range sysctls {
		file := "/run/sysctl-" + strings.ReplaceAll(name, "/", "-")
		c.WriteFile(t, file, []byte(value+"\n"), 0o644)
		c.Output(t, "mount", "--bind", file, "/proc/sys/"+name)
	}
	c.start(t, "containerd")
	c.Load(t, images)
	c.start(t, "kubelet")
	c.Until(t, "the node is ready", func() (bool, string) {
		var node struct {
			Status struct {
				Conditions []struct{ Type, Status, Reason, Message string }
			}
		}
		if a := c.Get(t, "/api/v1/nodes/"+nodeName); !a.Into(t, &node) {
			return false, a.String()
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return true, ""
			}
		}
		return false, fmt.Sprint(node.Status.Conditions)
	})
}

// Load gives the images of an archive to the node.
func (c *Cluster) Load(t testing.TB, archive string, flags ...string) {
	t.Helper()
	args := slices.Concat([]string{"ctr", "--namespace=k8s.io", "image", "import"}, flags, []string{archive})
	if r := c.Command(t, machine.Command{Args: args, Timeout: 4 * time.Minute}); r.Exit != 0 {
		t.Fatalf("%v: %s", args, r.Stderr)
	}
}

func (c *Cluster) start(t testing.TB, unit string) {
	t.Helper()
	if r := c.Command(t, machine.Command{Args: []string{"systemctl", "start", unit}, Timeout: 4 * time.Minute}); r.Exit != 0 {
		t.Fatalf("%s does not start: %s", unit, r.Stderr)
	}
}

// lastResort bounds a wait for what never comes. No machine is too slow for it.
const lastResort = 10 * time.Minute

// Until waits for a condition. When it does not come, the test fails and prints the
// state.
func (c *Cluster) Until(t testing.TB, what string, reached func() (done bool, state string)) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		done, state := reached()
		switch {
		case done:
			return
		case time.Since(start) > lastResort:
			t.Fatalf("after %v it is still not so: %s\n%s", lastResort, what, state)
		}
	}
}

// logState logs what explains a failure.
func (c *Cluster) logState(t testing.TB) {
	for _, command := range []string{
		"systemctl --no-pager list-units --failed --no-legend",
		"for log in " + logDir + "/*; do echo \"== $log\"; tail -n 15 $log | cut -c 1-400; done",
	} {
		if r, err := c.Do(context.Background(), machine.Command{Args: []string{"sh", "-c", command}}); err == nil {
			t.Logf("%s", r.Stdout)
		}
	}
}
