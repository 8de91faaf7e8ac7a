// Package kube holds what Kubernetes and this program call things by: the names
// under which profiles lie on a node, and the keys of labels and taints. It reads
// manifests that anybody may have written: which containers there are, and which
// seccomp profile the kubelet passes on for each.
package kube

import (
	"crypto/sha256"
	"encoding/hex"
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

// SeccompRoot is the kubelet's directory of profiles, unless --root-dir says otherwise.
// The names below are relative to it, as in localhostProfile.
const SeccompRoot = "/var/lib/kubelet/seccomp"

// Profiles of this program lie below ProfileDir alone. DefaultProfile is that of a
// container that holds no rule.
const (
	ProfileDir     = "afalg-policy"
	GrantedDir     = ProfileDir + "/granted"
	DefaultProfile = ProfileDir + "/default.json"
)

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
