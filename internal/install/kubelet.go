package install

import (
	"fmt"
	"path"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// kubeletConfigs are the files by which a kubelet is known: kubeadm's, and
// those of packages.
var kubeletConfigs = []string{"/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/kubelet-config.yaml"}

// kubelet returns the file that shows a node of Kubernetes, or "".
func kubelet(h *host.Host) string {
	files := slices.Clone(kubeletConfigs)
	for _, dir := range unitDirs {
		files = append(files, path.Join(dir, "kubelet.service"))
	}
	if i := slices.IndexFunc(files, h.Exists); i >= 0 {
		return files[i]
	}
	return ""
}

// checkKubelet refuses a policy for a node unless it says explicitly what
// becomes of containers without a profile: it could stop the node. A kubelet
// passes Unconfined for pods that name no profile; privileged pods, such as
// kube-proxy and network plugins, never have one.
func (o *Options) checkKubelet(h *host.Host) error {
	if at := kubelet(h); at != "" && !o.Unconfined.Said {
		return fmt.Errorf("this is a node of Kubernetes (%s), whose kubelet starts privileged pods, as kube-proxy, and most others, without a seccomp profile: the policy does not say what becomes of those, and they would not start any more. Say it in the policy: containers: unconfined: harden gives them a profile that closes AF_ALG alone; refuse is meant for nodes without such pods", h.Shown(at))
	}
	return nil
}
