package deploy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// TestClusterNodeRights attacks nodes with the token of one of our pods. RBAC lets it
// patch every node; the policy that comes with the right narrows it. The control is
// another service account with that right: the policy is not about it.
func TestClusterNodeRights(t *testing.T) {
	const (
		ours   = "system:serviceaccount:afalg-policy:afalg-policy"
		other  = "system:serviceaccount:kube-system:other"
		name   = "authentication.kubernetes.io/node-name"
		closed = `"` + kube.LabelClosed + `":"true"`
		gate   = `{"key":"` + kube.TaintOpen + `","effect":"NoSchedule"}`
		gpu    = `{"key":"gpu","effect":"NoSchedule"}`
	)
	node := func(labels, spec string) json.RawMessage {
		return json.RawMessage(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"node1","labels":{` + labels + `}},"spec":{` + spec + `}}`)
	}
	taints := func(list ...string) string { return `"taints":[` + strings.Join(list, ",") + `]` }
	on := func(node string) map[string][]string { return map[string][]string{name: {node}} }
	type update struct {
		User     string
		Extra    map[string][]string
		Old, New json.RawMessage
	}
	tests := []struct {
		name string
		update
		want string
	}{
		{"closed", update{ours, on("node1"), node(`"os":"linux"`, taints(gpu, gate)), node(`"os":"linux",`+closed, taints(gpu))}, ""},
		{"the first label", update{ours, on("node1"), node("", ""), node(closed, "")}, ""},
		{"the label off", update{ours, on("node1"), node(closed, ""), node("", "")}, ""},
		{"another node", update{ours, on("node2"), node("", taints(gate)), node(closed, "")}, "its own node alone"},
		{"a token of no node", update{ours, nil, node("", taints(gate)), node(closed, "")}, "its own node alone"},
		{"another label", update{ours, on("node1"), node("", ""), node(`"zone":"a"`, "")}, "the label afalg-policy.io/closed alone"},
		{"an empty label", update{ours, on("node1"), node("", ""), node(`"node-role.kubernetes.io/control-plane":""`, "")}, "the label afalg-policy.io/closed alone"},
		{"a label off", update{ours, on("node1"), node(`"zone":"a"`, ""), node("", "")}, "the label afalg-policy.io/closed alone"},
		{"a label changed", update{ours, on("node1"), node(`"zone":"a"`, ""), node(`"zone":"b"`, "")}, "the label afalg-policy.io/closed alone"},
		{"a taint put", update{ours, on("node1"), node("", ""), node("", taints(gpu))}, "and no other"},
		{"a taint off", update{ours, on("node1"), node("", taints(gpu)), node("", "")}, "and no other"},
		{"a taint changed", update{ours, on("node1"), node("", taints(gpu)), node("", taints(strings.Replace(gpu, "NoSchedule", "NoExecute", 1)))}, "and no other"},
		{"cordoned", update{ours, on("node1"), node("", ""), node("", `"unschedulable":true`)}, "nothing else of a node"},
		{"another machine", update{ours, on("node1"), node("", ""), node("", `"providerID":"x://1"`)}, "nothing else of a node"},
		{"control: not ours", update{other, on("node2"), node("", taints(gpu)), node(`"zone":"a"`, "")}, "not matched"},
	}
	var question struct {
		Policy  string
		Updates []update
	}
	question.Policy = nodePolicy(t)
	for _, tt := range tests {
		question.Updates = append(question.Updates, tt.update)
	}
	in, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	out, err := render(t, in, "admit")
	if err != nil {
		t.Fatal(err)
	}
	var answers [][]string
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(tests) {
		t.Fatalf("%v: %s", err, out)
	}
	for i, tt := range tests {
		if got := strings.Join(answers[i], "; "); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// nodePolicy is the policy as the chart renders it, in JSON.
func nodePolicy(t *testing.T) string {
	t.Helper()
	all := objects(t, helm(t, map[string]any{"image": pinned(digest), "nodeUpdate": map[string]any{"enabled": true}}))
	text, err := json.Marshal(all["ValidatingAdmissionPolicy afalg-policy-node"])
	if err != nil || string(text) == "null" {
		t.Fatalf("no policy: %v", err)
	}
	return string(text)
}

// TestClusterReasons: whatever a container has beyond an ordinary one stands below a
// comment that says why.
func TestClusterReasons(t *testing.T) {
	for _, mode := range modes {
		values := map[string]any{"mode": mode, "image": pinned(digest), "nodeUpdate": map[string]any{"enabled": true}, "nri": map[string]any{"capabilities": []string{"SETUID"}}}
		found := 0
		for _, document := range strings.Split(string(helm(t, values)), "---\n") {
			var n yaml.Node
			if err := yaml.Unmarshal([]byte(document), &n); err != nil {
				t.Fatal(err)
			}
			found += unexplained(t, mode, "", &n, "")
		}
		if found < 3 {
			t.Errorf("%s: %d things to explain", mode, found)
		}
	}
}

// explained are keys whose value takes a reason, unless it is the one given here.
var explained = map[string]string{
	"hostPID": "", "privileged": "", "seccompProfile": "RuntimeDefault Localhost", "appArmorProfile": "", "seLinuxOptions": "",
	"priorityClassName": "", "tolerations": "", "automountServiceAccountToken": "false", "runAsUser": "65532",
}

// unexplained walks a node, and returns how many reasons it found. above is the
// comment over the key that leads here.
func unexplained(t *testing.T, mode, path string, n *yaml.Node, above string) (found int) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			found += unexplained(t, mode, path, c, "")
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			reason := key.HeadComment
			if i == 0 && reason == "" {
				reason = n.HeadComment + above
			}
			at := path + "." + key.Value
			if plain, ok := explained[key.Value]; ok && !ordinary(value, plain) {
				found++
				if reason == "" {
					t.Errorf("%s: %s has no reason above it", mode, at)
				}
			}
			found += unexplained(t, mode, at, value, "")
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			if strings.HasSuffix(path, ".capabilities.add") || strings.HasSuffix(path, ".volumeMounts") && !strings.Contains(text(c), "mountPath: /etc/afalg-policy") {
				found++
				if c.HeadComment == "" {
					t.Errorf("%s: %s: %s has no reason above it", mode, path, text(c))
				}
			}
			found += unexplained(t, mode, path, c, c.HeadComment)
		}
	}
	return found
}

func ordinary(n *yaml.Node, values string) bool {
	for _, v := range strings.Fields(values) {
		if n.Value == v || strings.HasPrefix(text(n), "type: "+v) {
			return true
		}
	}
	return false
}

func text(n *yaml.Node) string {
	out, err := yaml.Marshal(n)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// TestClusterLeast holds for each container of each mode but the one that is root of its
// node: no capability that is not named, no writable root, nothing gained later, and
// a token nowhere but where the node is marked.
func TestClusterLeast(t *testing.T) {
	for _, mode := range modes {
		for _, marks := range []bool{false, true} {
			all := objects(t, helm(t, map[string]any{"mode": mode, "image": pinned(digest), "nodeUpdate": map[string]any{"enabled": marks}}))
			var d struct {
				Spec struct {
					Template struct {
						Spec struct {
							AutomountServiceAccountToken, HostNetwork, HostIPC *bool
							InitContainers, Containers                         []container
						}
					}
				}
			}
			recode(t, all["DaemonSet afalg-policy"], &d)
			s := d.Spec.Template.Spec
			if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken || s.HostNetwork != nil || s.HostIPC != nil {
				t.Errorf("%s: %+v", mode, s)
			}
			var root, token []string
			for _, c := range append(s.InitContainers, s.Containers...) {
				sc := c.SecurityContext
				if !sc.ReadOnlyRootFilesystem || !sc.Privileged && (sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || !cmp.Equal(sc.Capabilities.Drop, []string{"ALL"})) {
					t.Errorf("%s: %s: %+v", mode, c.Name, sc)
				}
				if sc.Privileged {
					root = append(root, c.Name)
				}
				for _, m := range c.VolumeMounts {
					if m.Name == "token" {
						token = append(token, c.Name)
					}
					if strings.HasSuffix(m.MountPath, ".sock") {
						t.Errorf("%s: %s mounts a socket, which goes stale: %s", mode, c.Name, m.MountPath)
					}
				}
			}
			wantRoot := map[string][]string{"host": {"install"}, "remove": {"remove"}}[mode]
			wantToken := map[bool][]string{true: {"node"}}[marks]
			if !cmp.Equal(root, wantRoot) || !cmp.Equal(token, wantToken) {
				t.Errorf("%s: privileged %v, with a token %v", mode, root, token)
			}
			if (all["ClusterRole afalg-policy-node"] != nil) != marks {
				t.Errorf("%s: rights without nodeUpdate, or none with it", mode)
			}
		}
	}
}

type container struct {
	Name            string
	SecurityContext struct {
		Privileged, ReadOnlyRootFilesystem bool
		AllowPrivilegeEscalation           *bool
		Capabilities                       struct{ Add, Drop []string }
	}
	VolumeMounts []struct{ Name, MountPath string }
}

func recode(t *testing.T, from, into any) {
	t.Helper()
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestClusterNames: what is written in templates is what the program calls things by.
func TestClusterNames(t *testing.T) {
	out := string(helm(t, map[string]any{"mode": "files", "image": pinned(digest), "nodeUpdate": map[string]any{"enabled": true}}))
	for _, want := range []string{
		"namespace: " + kube.Namespace + "\n", "localhostProfile: " + kube.DefaultProfile + "\n", "path: " + kube.SeccompRoot + "\n",
		"k == '" + kube.LabelClosed + "'", "t.key == '" + kube.TaintOpen + "'",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q", want)
		}
	}
}
