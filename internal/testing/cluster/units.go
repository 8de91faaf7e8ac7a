package cluster

import (
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Addresses within the box. The service of the API server has no proxy: its
// address is the box's own.
const (
	nodeName    = "node1"
	nodeAddress = "192.0.2.1"
	apiAddress  = "10.96.0.1"
	etcdAddress = "http://127.0.0.1:2379"
	etcdPeers   = "http://127.0.0.1:2380"
)

// Directories and files within the box.
const (
	stateDir  = "/srv/kubernetes"
	logDir    = "/run/log-of" // one file a unit
	apiSocket = wire.BoxDir + "/api.sock"
)

// service is a unit that runs one program for ever.
type service struct {
	name string
	args []string
}

// controlPlane lists the services in the order of their start, with programs in dir.
func controlPlane(dir string) []service {
	client := func(name string) []string {
		kubeconfig := stateDir + "/" + name + ".kubeconfig"
		return []string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1", "--leader-elect=false"}
	}
	return []service{
		{"etcd", []string{dir + "/server", "--data-dir=" + stateDir + "/etcd", "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + etcdAddress, "--advertise-client-urls=" + etcdAddress,
			"--listen-peer-urls=" + etcdPeers, "--initial-advertise-peer-urls=" + etcdPeers, "--initial-cluster=default=" + etcdPeers}},
		{"kube-apiserver", []string{dir + "/kube-apiserver", "--etcd-servers=" + etcdAddress, "--secure-port=443",
			"--advertise-address=" + nodeAddress, "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
			"--tls-cert-file=" + stateDir + "/apiserver.crt", "--tls-private-key-file=" + stateDir + "/apiserver.key",
			"--client-ca-file=" + stateDir + "/ca.crt", "--kubelet-certificate-authority=" + stateDir + "/ca.crt",
			"--kubelet-client-certificate=" + stateDir + "/admin.crt", "--kubelet-client-key=" + stateDir + "/admin.key",
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + stateDir + "/sa.pub",
			"--service-account-signing-key-file=" + stateDir + "/sa.key",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--audit-policy-file=" + stateDir + "/audit.yaml", "--audit-log-path=" + auditLog}},
		{"kube-controller-manager", append([]string{dir + "/kube-controller-manager", "--use-service-account-credentials",
			"--service-account-private-key-file=" + stateDir + "/sa.key", "--root-ca-file=" + stateDir + "/ca.crt"}, client("controller-manager")...)},
		{"kube-scheduler", append([]string{dir + "/kube-scheduler"}, client("scheduler")...)},
	}
}

func kubelet(dir string) service {
	return service{"kubelet", []string{dir + "/kubelet", "--config=" + stateDir + "/kubelet.yaml", "--kubeconfig=" + stateDir + "/node.kubeconfig",
		"--hostname-override=" + nodeName, "--node-ip=" + nodeAddress, "--root-dir=" + kubeletDir}}
}

// unit is the text of a unit. There is no journal.
func (s service) unit() string {
	return fmt.Sprintf(`[Unit]
StartLimitIntervalSec=0

[Service]
ExecStart=%s
Restart=always
RestartSec=1
KillMode=process
StandardOutput=append:%[2]s/%[3]s
StandardError=append:%[2]s/%[3]s
`, strings.Join(s.args, " "), logDir, s.name)
}

const (
	kubeletDir = "/var/lib/kubelet"
	auditLog   = "/run/audit.json"
)

// sysctls are what the kubelet would set. They are the host's: a box may not write
// them, and shows the kubelet what it wants to see.
var sysctls = map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}

// auditPolicy records what admission says of pods.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, verbs: [create, update], resources: [{group: "", resources: [pods, pods/ephemeralcontainers]}]}
  - {level: None}
`

// kubeletConfig is that of a node without limits of its own, on cgroups of either
// version.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: ` + stateDir + `/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: ` + stateDir + `/node.crt
tlsPrivateKeyFile: ` + stateDir + `/node.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
evictionHard: {memory.available: 1Mi}
makeIPTablesUtilChains: false
resolvConf: ""
syncFrequency: 2s
configMapAndSecretChangeDetectionStrategy: Watch
`

// containerdConfig is one that pods can use whose box lacks a capability or two.
const containerdConfig = `version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
`

// podNetwork gives each pod an address, and a way to the node.
const podNetwork = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "ptp",
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
`

// proxyUnits are the socket of the host's side, and what answers on it.
var proxyUnits = map[string]string{
	"api.socket":  "[Socket]\nListenStream=" + apiSocket + "\n",
	"api.service": "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd " + apiAddress + ":443\n",
}

// kubeconfig lets a program of the box reach the API server under a name.
func kubeconfig(name string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: box, cluster: {server: "https://%[1]s", certificate-authority: %[2]s/ca.crt}}]
users: [{name: %[3]s, user: {client-certificate: %[2]s/%[3]s.crt, client-key: %[2]s/%[3]s.key}}]
contexts: [{name: box, context: {cluster: box, user: %[3]s}}]
current-context: box
`, apiAddress, stateDir, name)
}
