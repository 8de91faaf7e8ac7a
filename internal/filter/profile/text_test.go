package profile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestTexts: what is no profile is called what it is, at its place, with what
// to do.
func TestTexts(t *testing.T) {
	const object = "kind: SeccompProfile\nmetadata: {name: x}\n"
	rule := func(value string) string {
		return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO",` + "\n" + `"args":[{"index":0,"value":` + value + `,"op":"SCMP_CMP_EQ"}]}]}`
	}
	tests := []struct{ name, src, want string }{
		{"nothing", " \n", "1:1: the text is empty: a profile that filters nothing is {}"},
		{"mark", "\ufeff{}", "1:1: the text begins with a byte order mark"},
		{"UTF-16", "\xff\xfe{\x00", "save it as UTF-8"},
		{"UTF-16 without a mark", "{\x00}\x00", "1:2: a NUL byte: this is no text in UTF-8"},
		{"LXC", "2\r\nblacklist\n[all]\n", "1:1: this is a seccomp policy of LXC"},
		{"old LXC", "1\nwhitelist\n103\n", "1:1: this is a seccomp policy of LXC"},
		{"a name", rule("AF_ALG"), "2:28: write 38, the number of AF_ALG"},
		{"another name", rule("AF_VSOCK"), "2:28: write 40, the number of AF_VSOCK"},
		{"hexadecimal", rule("0x26"), "2:28: write 38"},
		{"a name in quotes", rule(`"AF_ALG"`), "2:28: syscalls.args.value cannot be a JSON string: write 38, the number of AF_ALG"},
		{"a number in quotes", rule(`"38"`), "2:28: syscalls.args.value cannot be a JSON string: write 38"},
		{"a name of old", rule("PF_ALG"), "2:28: write 38, the number of PF_ALG"},
		{"an errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":"EPERM"}`, "1:53: defaultErrnoRet cannot be a JSON string: write 1, the number of EPERM"},
		{"an operator without quotes", `{"defaultAction":SCMP_ACT_ERRNO}`, `1:18: write "SCMP_ACT_ERRNO", in quotes`},
		{"a name that is none", rule("AF_WHAT"), "2:28: invalid character 'A'"},
		{"no kind", "defaultAction: SCMP_ACT_ALLOW\n", "1:1: this is no profile: profiles are JSON, or objects of Kubernetes"},
		{"prose", "hello\n", "1:1: this is no profile"},
		{"broken YAML", "kind: [\n", "neither JSON nor YAML"},
		{"another kind", "kind: Pod\nspec: {}\n", `1:7: an object of kind "Pod": a profile has kind SeccompProfile`},
		{"no spec", object, "the object has no spec"},
		{"spec of another kind", object + "spec: []\n", "3:7: spec is no object"},
		{"united", object + "spec:\n  baseProfileName: runc-v1\n", `4:20: the operator unites this profile with "runc-v1"`},
		{"alias", object + "spec: &a {}\nother: *a\n", "3:7: an anchor or an alias"},
		{"tag", object + "spec: !!binary aGk=\n", "3:7: the tag"},
		{"key twice in YAML", object + "spec: {}\nspec: {}\n", `4:1`},
		{"key of another case", object + "spec:\n  DefaultAction: SCMP_ACT_ALLOW\n", `4:3: key "DefaultAction"`},
		{"name in YAML", object + "spec:\n  defaultAction: SCMP_ACT_ALLOW\n  syscalls:\n  - names: [socket]\n    action: SCMP_ACT_ERRNO\n    args: [{index: 0, value: AF_ALG, op: SCMP_CMP_EQ}]\n",
			"8:30: syscalls.args.value cannot be a JSON string: write 38"},
		{"list without profiles", `{"kind":"List","items":[]}`, "no object of kind SeccompProfile"},
		{"pods", `{"kind":"PodList","items":[{"kind":"Pod"}]}`, `1:36: an object of kind "Pod"`},
		{"deep", "kind: " + strings.Repeat("[", 100) + "\n", "nested deeper"},
		{"long", "kind: x\n" + strings.Repeat("- a\n", 1<<18), "too many parts"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read([]byte(test.src))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

// TestObjects: an object says the same in YAML and in JSON, and so does one in
// a stream.
func TestObjects(t *testing.T) {
	const yaml = `
# what kubectl apply takes
apiVersion: security-profiles-operator.x-k8s.io/v1beta1
kind: SeccompProfile
metadata: {name: x, namespace: y}
spec:
  disabled: false
  defaultAction: SCMP_ACT_ALLOW
  syscalls:
  - action: SCMP_ACT_ERRNO
    names: [socket]
    args:
    - {index: 0, value: 0x26, op: SCMP_CMP_EQ}
---
`
	const json = `{"kind":"SeccompProfile","metadata":{"name":"x"},"status":{"status":"Installed"},"spec":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO","names":["socket"],"args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]}]}}`
	var all []string
	for _, src := range []string{yaml, json} {
		p, err := Parse([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, asJSON(t, p))
	}
	if all[0] != all[1] || !strings.Contains(all[0], `"value": 38`) {
		t.Errorf("%s\nand\n%s", all[0], all[1])
	}
	texts, err := ReadTexts([]byte(yaml + strings.Replace(yaml, "name: x", "name: z", 1)))
	if err != nil || len(texts) != 2 || texts[0].Object != "y/x" || texts[1].Object != "y/z" {
		t.Errorf("%v, %v", texts, err)
	}
	// Manifests have objects of other kinds beside it.
	const others = "kind: Namespace\nmetadata: {name: y}\n---\nkind: List\nitems: [{kind: Pod}]\n---"
	const list = `{"kind":"List","items":[{"kind":"Pod"},` + json + `,{"kind":"Service"}]}`
	for _, src := range []string{others + yaml, yaml + others + "\n", list} {
		if texts, err := ReadTexts([]byte(src)); err != nil || len(texts) != 1 {
			t.Errorf("%d profiles, %v, in\n%s", len(texts), err, src)
		}
	}
	// One that may be a profile, or hold one, is not passed over.
	for _, one := range []string{`{"spec":{}}`, `{"kind":"List","items":[` + json + `]}`} {
		if texts, err := ReadTexts([]byte(`{"kind":"List","items":[` + json + `,` + one + `]}`)); err == nil {
			t.Errorf("%d profiles beside %s", len(texts), one)
		}
	}
}

// TestNull: Docker and Podman read it as they read {}.
func TestNull(t *testing.T) {
	if p, err := Read([]byte(" null\n")); err != nil || !p.FiltersNothing() {
		t.Errorf("%v, %v", p, err)
	}
}

// TestRemarks: a key that is not meant to do anything may be lost, another may
// not.
func TestRemarks(t *testing.T) {
	const rest = `"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}`
	for _, key := range []string{"_comment", "$schema", "// why", "comment", "description", "_"} {
		if _, err := Parse([]byte(`{"` + key + `":"x",` + rest)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	for key, want := range map[string]string{
		"syscall": `1:2: unknown key "syscall", which the runtimes ignore; did you mean "syscalls"?: correct it, or remove it`,
		"extends": `1:2: unknown key "extends", which the runtimes ignore: correct it, or remove it`,
	} {
		if _, err := Parse([]byte(`{"` + key + `":"x",` + rest)); err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", key, err, want)
		}
		if _, err := Read([]byte(`{"` + key + `":"x",` + rest)); err != nil {
			t.Errorf("%s: the runtimes read it: %v", key, err)
		}
	}
}

// TestByteOrders: a filter is for one byte order, whatever machine it is on.
func TestByteOrders(t *testing.T) {
	for _, tt := range []struct {
		native specs.Arch
		listed string
		other  bool
	}{
		{specs.ArchX86_64, "SCMP_ARCH_S390X", true},
		{specs.ArchX86_64, "SCMP_ARCH_PPC64", true},
		{specs.ArchX86_64, "SCMP_ARCH_MIPS", true},
		{specs.ArchX86_64, "SCMP_ARCH_PPC64LE", false},
		{specs.ArchAARCH64, "SCMP_ARCH_S390", true},
		{specs.ArchS390X, "SCMP_ARCH_X86_64", true},
		{specs.ArchS390X, "SCMP_ARCH_S390", false},
	} {
		src := fmt.Sprintf("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[],\n\"architectures\":[%q,\n%q]}", tt.native, tt.listed)
		p, err := Read([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		err = p.Loadable(Host{Arch: tt.native})
		if !tt.other && err != nil || tt.other && (err == nil || !strings.HasPrefix(err.Error(), "3:1: no runtime on") || !strings.Contains(err.Error(), "archMap")) {
			t.Errorf("%s on %s: %v", tt.listed, tt.native, err)
		}
	}
}
