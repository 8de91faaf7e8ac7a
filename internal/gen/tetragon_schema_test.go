package gen

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonschema "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// crd names the CustomResourceDefinition of a cluster, of any version of Tetragon:
//
//	kubectl get crd tracingpolicies.cilium.io -o yaml > /tmp/crd.yaml
//	go test ./internal/gen -run TestTetragonSchema -crd /tmp/crd.yaml
var crd = flag.String("crd", filepath.Join("testdata", "tetragon.crd.yaml"), "the CustomResourceDefinition of TracingPolicy to check against")

type definition struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Schema struct {
				OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
			}
		}
	}
}

// strictSchema compiles a definition so that a key which it does not have is an
// error: the API server would drop that key, or refuse the object.
func strictSchema(t *testing.T, path string) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d definition
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(d.Spec.Versions) != 1 {
		t.Fatalf("%s: %d versions", path, len(d.Spec.Versions))
	}
	version := d.Spec.Versions[0]
	root := version.Schema.OpenAPIV3Schema
	closeObjects(root)
	// What the API server asks of every object, and no definition repeats.
	properties := root["properties"].(map[string]any)
	properties["apiVersion"] = map[string]any{"const": d.Spec.Group + "/" + version.Name}
	properties["kind"] = map[string]any{"const": d.Spec.Names.Kind}
	root["required"] = append(root["required"].([]any), "apiVersion", "kind")

	c := jsonschema.NewCompiler()
	if err := c.AddResource("crd.json", plainJSON(t, root)); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("crd.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func closeObjects(schema map[string]any) {
	if properties, ok := schema["properties"].(map[string]any); ok {
		schema["additionalProperties"] = false
		for _, p := range properties {
			closeObjects(p.(map[string]any))
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if inner, ok := schema[key].(map[string]any); ok {
			closeObjects(inner)
		}
	}
}

// plainJSON turns what the YAML reader made into what the validator reads.
func plainJSON(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	again, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func asObject(t *testing.T, text string) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return plainJSON(t, value)
}

func tetragonOutputs(t *testing.T) map[string]string {
	t.Helper()
	outputs := map[string]string{}
	plans := shippedPlans(t)
	plans["conditions"] = conditionsPlan()
	for name, p := range plans {
		files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
		if err != nil {
			t.Fatal(err)
		}
		outputs[name] = string(files[0].Data)
	}
	return outputs
}

func TestTetragonSchema(t *testing.T) {
	schema := strictSchema(t, *crd)
	outputs := tetragonOutputs(t)
	for name, text := range outputs {
		if err := schema.Validate(asObject(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, damage := range [][2]string{
		{"apiVersion: cilium.io/v1alpha1", "apiVersion: cilium.io/v1"},
		{"kind: TracingPolicy", "kind: TracingPolicyNamespaced"},
		{"metadata:", "metaData:"},
		{"  kprobes:", "  kProbes:"},
		{"call: security_socket_bind", "function: security_socket_bind"},
		{"syscall: false", "syscall: no thanks"},
		{"sizeArgIndex: 3", "sizeArgIndex: three"},
		{"sizeArgIndex: 3", "sizeArg: 3"},
		{"type: char_buf", "type: char-buf"},
		{"source: current_task", "from: current_task"},
		{"namespace: Mnt", "namespace: Mount"},
		{"operator: InMap", "operator: InSet"},
		{"operator: Prefix", "operator: StartsWith"},
		{"matchData:", "matchdata:"},
		{"matchCapabilities:", "matchCapability:"},
		{"type: Effective", "type: Ambient"},
		{"action: Override", "action: Deny"},
		{"argError: -2", "argError: ENOENT"},
		{"- '38'", "- 38"},
	} {
		text := strings.Replace(outputs["conditions"], damage[0], damage[1], 1)
		if text == outputs["conditions"] {
			t.Errorf("no output has %q", damage[0])
		}
		if schema.Validate(asObject(t, text)) == nil {
			t.Errorf("%q is taken for %q", damage[1], damage[0])
		}
	}
}

// TestTetragonLimits: Tetragon refuses a policy that exceeds one of its limits
// (pkg/selectors/kernel.go and pkg/sensors/tracing of 1.7.0). The last is silent:
// the program masks offsets into the selectors of a kprobe with 0x3ff.
func TestTetragonLimits(t *testing.T) {
	plans := shippedPlans(t)
	plans["conditions"] = conditionsPlan()
	plans["most"] = mostPlan()
	for name, p := range plans {
		files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range tracingPolicyOf(t, files).Spec.Kprobes {
			size := 4
			for _, s := range k.Selectors {
				size += selectorSize(s)
				within(t, name, "filters of a selector", len(s.MatchArgs)+len(s.MatchData), 5)
				for _, f := range s.MatchArgs {
					if f.Operator == "Equal" {
						within(t, name, "values that are equal", len(f.Values), 4)
					}
					for _, v := range f.Values {
						within(t, name, "bytes of a prefix", len(v), 256)
					}
				}
				for _, f := range s.MatchBinaries {
					for _, v := range f.Values {
						within(t, name, "bytes of a path", len(v), 255)
					}
				}
			}
			within(t, name, "selectors", len(k.Selectors), 5)
			within(t, name, "arguments and data", len(k.Args)+len(k.Data), 5)
			within(t, name, "bytes of all selectors", size, 0x3ff)
			within(t, name, "bytes of a message", len(k.Message), 256)
		}
	}
}

func within(t *testing.T, name, what string, n, most int) {
	t.Helper()
	if n > most {
		t.Errorf("%s: %d %s; Tetragon takes %d", name, n, what, most)
	}
}

// selectorSize is what a selector takes in the map of a kprobe: its offset, its
// length, and a length before each kind of filter.
func selectorSize(s selector) int {
	size := 4 + 4 + 4 // and no matchPIDs
	size += 4
	for _, f := range s.MatchNamespaces {
		size += 12 + 4*len(f.Values)
	}
	size += 4 + 20*len(s.MatchCapabilities)
	size += 4 + 4 // changes of namespaces and of capabilities
	size += 4 + 5*4
	for _, f := range append(s.MatchArgs, s.MatchData...) {
		size += 16 + 4*len(f.Values[:1])
		if f.Operator == "Equal" {
			size += 4 * (len(f.Values) - 1)
		}
	}
	return size + 4 + 8*len(s.MatchActions)
}

// mostPlan has more than one kprobe can have.
func mostPlan() *plan.Plan {
	p := &plan.Plan{}
	for i, users := range [][]string{{"0"}, {"1"}, {"2", "3", "4", "5", "6"}, {"7"}} {
		p.Rules = append(p.Rules, policy.Rule{
			Name: string(rune('a' + i)), Users: users, Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
			Algorithms: allowing("hash", "hmac(sha256)", strings.Repeat("a", afalg.MaxLongName)),
		})
	}
	p.Rules = append(p.Rules, policy.Rule{Name: "x", Binaries: binaries("/" + strings.Repeat("a", 255)), Algorithms: allowing("hash", "sha1")})
	p.Rules = append(p.Rules, policy.Rule{Name: "y", Binaries: binaries("/" + strings.Repeat("a", 254)), Users: []string{"0"}, Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, Algorithms: allowing("hash", "sha1")})
	return p
}
