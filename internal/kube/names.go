// Package kube holds what Kubernetes and this program call things by: the names
// under which profiles lie on a node, and the keys of labels and taints. It reads
// manifests that anybody may have written: which containers there are, and which
// seccomp profile the kubelet passes on for each.
package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"
)

// Keys of labels and taints.
const (
	// LabelExempt on a namespace takes it out of admission. Whoever may label
	// namespaces may exempt.
	LabelExempt = "afalg-policy.io/exempt"
	// LabelClosed on a node says that a container there found every route closed.
	LabelClosed = "afalg-policy.io/closed"
	// TaintOpen keeps pods from a node until it is.
	TaintOpen = "afalg-policy.io/not-closed"
)

// Namespace is where our own pods run. AgentContainer is the container of the agent
// in them: it makes the sockets that the policy allows, and no filter is put on it.
// Whoever may create pods in the namespace has the node.
const (
	Namespace      = "afalg-policy"
	AgentContainer = "agent"
)

// KubeletRoot is the kubelet's directory, unless --root-dir says otherwise, and
// SeccompRoot that of profiles in it. The names below are relative to that, as in
// localhostProfile.
const (
	KubeletRoot = "/var/lib/kubelet"
	SeccompRoot = KubeletRoot + "/seccomp"
)

// Profiles of this program lie below ProfileDir alone. DefaultProfile is that of a
// container that holds no rule.
const (
	ProfileDir     = "afalg-policy"
	GrantedDir     = ProfileDir + "/granted"
	DefaultProfile = ProfileDir + "/default.json"
)

// NRIPlugin is what containerd calls the agent as its plugin.
const NRIPlugin = "afalg-policy"

// OperatorProfile is the file that the Security Profiles Operator writes for one of
// its objects.
func OperatorProfile(object string) string { return "operator/" + object + ".json" }

// maxName keeps file names well below the 255 bytes of Linux.
const maxName = 200

// GrantedProfile is the profile of a container that holds these rules. The order of
// the rules does not count. No two sets share a name, but by a collision of SHA-256.
func GrantedProfile(rules []string) string {
	if len(rules) == 0 {
		return DefaultProfile
	}
	rules = slices.Compact(slices.Sorted(slices.Values(rules)))
	name := strings.Join(rules, ".") // names of rules have no dot, and begin with no underscore
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = "_sha256-" + hex.EncodeToString(sum[:])
	}
	return GrantedDir + "/" + name + ".json"
}

// GrantedRules are the rules that the name of a granted profile says; nil for a name
// that says none, as that of a set which is too long. It reports whether the name is
// that of a granted profile.
func GrantedRules(localhost string) (rules []string, granted bool) {
	name, granted := strings.CutPrefix(path.Clean(localhost), GrantedDir+"/")
	if !granted {
		return nil, false
	}
	name = strings.TrimSuffix(name, ".json")
	if strings.HasPrefix(name, "_") || strings.Contains(name, "/") {
		return nil, true
	}
	return strings.Split(name, "."), true
}
