package gen

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/testing/selinuxtest"
)

func operatorOutput(t *testing.T, text string) (map[string]string, []plan.Gap) {
	t.Helper()
	files, gaps, err := Kubernetes(kubernetesPlan(t, text), KubernetesOptions{
		Carrier:        CarrierOperator,
		SeccompOptions: SeccompOptions{Common: Common{Tool: "test", Accept: []string{gapAdmission}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fileMap(files), gaps
}

// The object is the profile of the files, whole. A rule with a grant has none: the
// operator takes no listener of ours.
func TestKubernetesOperator(t *testing.T) {
	const policy = kubernetesRules + "containers:\n  grants:\n    - {rules: [digest], namespaces: [crypto]}\n"
	made, gaps := operatorOutput(t, policy)
	var object struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             map[string]any
	}
	if err := yaml.Unmarshal([]byte(made["operator/seccomp.yaml"]), &object); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"defaultErrnoRet", "listenerPath", "baseProfileName"} {
		if _, has := object.Spec[key]; has {
			t.Errorf("it has %s", key)
		}
	}
	fromObject, err := profile.Read([]byte(made["operator/seccomp.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	files, _, err := KubernetesProfiles(kubernetesPlan(t, kubernetesRules), SeccompOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := profile.Read(files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if len(fromObject.Syscalls) != len(fromFile.Syscalls) || len(fromObject.Syscalls) < 20 {
		t.Errorf("%d rules, in the file %d", len(fromObject.Syscalls), len(fromFile.Syscalls))
	}
	if text := made["audit/policy.yaml"] + made["mutate/policy.yaml"]; !strings.Contains(text, "'operator/afalg-policy-default.json'") || strings.Contains(text, "afalg-policy/granted") {
		t.Error("admission takes other files")
	}
	for name := range made {
		if strings.HasPrefix(name, "profiles/") {
			t.Errorf("there is %s", name)
		}
	}
	found := false
	for _, g := range gaps {
		found = found || g.Name == "digest" && g.Kind == plan.Stricter && strings.Contains(g.Text, "listener")
	}
	if !found {
		t.Errorf("%v", gaps)
	}
}

// What the operator's definition lacks is refused, and not pruned by a server.
func TestKubernetesOperatorRefuses(t *testing.T) {
	for _, tt := range []struct{ profile, want string }{
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[]}`, ""},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[]}`, "defaultErrnoRet is 38, and the object has none, which means 1: take a base with 1"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/a.sock","syscalls":[]}`, `listenerPath "/run/a.sock": the operator takes none but its own`},
		{`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":9223372036854775808,"op":"SCMP_CMP_EQ"}]}]}`, "syscalls[0]: values of 9223372036854775808 and more are none of the object's"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":0}]}`, "syscalls[0]: errnoRet 0: the object has 1 to 2147483647, and leaves 0 out"},
	} {
		p, err := profile.Parse([]byte(tt.profile))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if _, err := operatorSpecOf(p); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.profile, got, tt.want)
		}
	}
}

// The operator wraps a module in a block, and takes no directive that leaves it.
// Its own check is on that text; SELinux's compiler then has it deny AF_ALG.
func TestKubernetesSELinuxInABlock(t *testing.T) {
	made, _ := operatorOutput(t, "deny: {families: [AF_RXRPC]}\n")
	var object struct{ Spec struct{ Policy string } }
	if err := yaml.Unmarshal([]byte(made["operator/selinux.yaml"]), &object); err != nil {
		t.Fatal(err)
	}
	policy := object.Spec.Policy
	for _, directive := range []string{"block", "optional", "typepermissive", "user", "role", "class"} {
		if strings.Contains(policy, "("+directive+" ") {
			t.Errorf("it has %s, which the operator refuses", directive)
		}
	}
	block := func(text string) string {
		return "(block " + operatorModule + "_\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n)\n"
	}
	base, err := os.ReadFile(openPolicy)
	if err != nil || !bytes.Contains(base, []byte("alg_socket")) {
		t.Fatalf("%v", err)
	}
	if _, err := selinuxtest.Compile(t, openPolicy, selinuxtest.Write(t, "block.cil", block(policy))); err != nil {
		t.Errorf("in a block: %v", err)
	}
	_, err = selinuxtest.Compile(t, openPolicy, selinuxtest.Write(t, "block.cil", block(without(policy, "deny"))))
	if err == nil || !strings.Contains(err.Error(), "neverallow check failed") {
		t.Errorf("without deny rules: %v", err)
	}
}
