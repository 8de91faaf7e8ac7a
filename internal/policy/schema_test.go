package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	generator "github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

//go:generate go test . -run ^TestSchemaIsCurrent$ -update

var update = flag.Bool("update", false, "rewrite policies/policy.schema.json")

const schemaFile = "../../policies/policy.schema.json"

// file is a policy as it stands in a file. Its keys are those that the types of
// a policy name; what the tables below say of each is what Go's types do not.
type file struct {
	Version versionShape `json:"version"`
	Policy
}

// property is a key of a mapping.
type property struct {
	key   string
	about string
	shape any // what its value looks like; nil if the Go type says it
	most  int // items of a list that may be empty; 0 for lists that may not, and for others
}

var (
	policyProperties = []property{
		{"version", "The version of the policy language.", nil, 0},
		{"name", "The name of the policy, in reports and generated files.", policyShape{}, 0},
		{"include", "Policies whose rules hold here too: builtin:NAME, or a path relative to this file.", []includeShape{}, 0},
		{"deny", "How AF_ALG is denied, and what is closed besides.", nil, 0},
		{"allow", "Who may use which algorithm. Everything else is denied.", nil, MaxRules},
		{"containers", "How containers are started.", nil, 0},
		{"expect-open", "Processes for which verify --all expects AF_ALG to be open. Nothing that is enforced changes.", nil, MaxExpected},
	}
	expectedProperties = []property{
		{"reason", "Why it is expected.", reasonShape{}, 0},
		{"outside-containers", "Condition: the process is in no container.", trueShape{}, 0},
		{"units", "Condition: one of these systemd units.", []unitShape{}, 0},
		{"binaries", "Condition: one of these executables of the host.", []pathShape{}, 0},
	}
	denyProperties = []property{
		{"socket-errno", "What socket() fails with; EAFNOSUPPORT by default, as in a kernel without AF_ALG.", errnoShape{}, 0},
		{"bind-errno", "What bind() fails with; ENOENT by default, as in a kernel without the algorithm.", errnoShape{}, 0},
		{"presets", "Named sets of classes to close, to everybody: see list presets.", []presetShape{}, 0},
		{"families", "Further socket families to close, to everybody.", []familyShape{}, 0},
		{"sockets", "Further classes of sockets to close, to everybody. What is not given is any.", []Socket{}, 0},
		{"socket-options", "Socket options that nobody may set.", []SocketOption{}, 0},
		{"user-namespaces", "True if nobody may make a user namespace.", trueShape{}, 0},
		{"zero-copy", "Whether zero-copy into AF_ALG is refused; only the kernel half can, and refuses it unless this is false.", choiceShape{}, 0},
	}
	ruleProperties = []property{
		{"rule", "The name of the rule, for --grant and --accept.", ruleNameShape{}, 0},
		{"anyone", "True for a rule without conditions.", nil, 0},
		{"binaries", "Condition: one of these executables.", []binaryShape{}, 0},
		{"strict-exec", "Condition on the binaries: nobody else steers them, by LD_PRELOAD or as a tracer. Only the kernel half can tell.", trueShape{}, 0},
		{"users", "Condition: one of these users, by name or uid.", []userShape{}, 0},
		{"capabilities", "Condition: one of these capabilities in the initial user namespace.", []capabilityShape{}, 0},
		{"units", "Condition: one of these systemd units.", []unitShape{}, 0},
		{"algorithms", "The algorithms, by type and exact name.", nil, 0},
		{"sockets", "Classes of sockets that deny closes, open to a workload that holds the rule as a grant.", []Socket{}, 0},
		{"socket-options", "Socket options that deny closes, open to such a workload.", []SocketOption{}, 0},
		{"user-namespaces", "True if such a workload may make user namespaces.", trueShape{}, 0},
	}
	socketProperties = []property{
		{"family", "The socket family, as in the kernel's header.", familyShape{}, 0},
		{"type", "The socket type.", socketTypeShape{}, 0},
		{"protocol", "The protocol, by the kernel's name or its number.", constantShape{}, 0},
	}
	optionProperties = []property{
		{"level", "The level of setsockopt, by the kernel's name or its number.", constantShape{}, 0},
		{"option", "The option of that level, by the kernel's name or its number.", constantShape{}, 0},
	}
	binaryProperties = []property{
		{"path", "The executable itself, not a symbolic link to it.", pathShape{}, 0},
		{"sha256", "The SHA-256 digest of its content.", digestShape{}, 0},
	}
	containersProperties = []property{
		{"unconfined", "What happens to a container without a seccomp profile; refuse by default.", unconfinedShape{}, 0},
		{"grants", "Which containers hold which rules. No other container holds any.", nil, MaxGrants},
	}
	grantProperties = []property{
		{"rules", "The names of the rules, of this policy or of one that it includes.", []ruleNameShape{}, 0},
		{"socketcall", "Leaves the sockets of 32-bit programs to the agent; they get none without it.", socketcallShape{}, 0},
		{"decided-by", "Leaves the rules to the kernel half: the container's profile keeps AF_ALG open. The agent decides without it.", decidedByShape{}, 0},
		{"platforms", "Condition: started by one of these; oci is a runtime that is called by hand.", []platformShape{}, 0},
		{"builds", "Condition: a step of an image build, whoever builds.", trueShape{}, 0},
		{"names", "Condition: one of these names of the container.", []containerShape{}, 0},
		{"images", "Condition: one of these digests of the image, of its configuration or its manifest.", []imageShape{}, 0},
		{"namespaces", "Condition: one of these namespaces of Kubernetes or of containerd.", []namespaceShape{}, 0},
		{"pods", "Condition: one of these names of the pod.", []containerShape{}, 0},
		{"labels", "Condition: all of these labels, with these values.", labelsShape{}, 0},
		{"annotations", "Condition: all of these annotations, with these values.", labelsShape{}, 0},
	}
)

// The generator asks a type for the shape of each of its keys, and then lets it
// finish its schema.
func (Policy) JSONSchemaProperty(key string) any       { return shapeOf(policyProperties, key) }
func (Deny) JSONSchemaProperty(key string) any         { return shapeOf(denyProperties, key) }
func (Rule) JSONSchemaProperty(key string) any         { return shapeOf(ruleProperties, key) }
func (Binary) JSONSchemaProperty(key string) any       { return shapeOf(binaryProperties, key) }
func (Socket) JSONSchemaProperty(key string) any       { return shapeOf(socketProperties, key) }
func (SocketOption) JSONSchemaProperty(key string) any { return shapeOf(optionProperties, key) }
func (Containers) JSONSchemaProperty(key string) any   { return shapeOf(containersProperties, key) }
func (Grant) JSONSchemaProperty(key string) any        { return shapeOf(grantProperties, key) }
func (Expected) JSONSchemaProperty(key string) any     { return shapeOf(expectedProperties, key) }

func (Policy) JSONSchemaExtend(s *generator.Schema)       { annotate(s, policyProperties) }
func (Deny) JSONSchemaExtend(s *generator.Schema)         { annotate(s, denyProperties) }
func (Binary) JSONSchemaExtend(s *generator.Schema)       { annotate(s, binaryProperties) }
func (Socket) JSONSchemaExtend(s *generator.Schema)       { annotate(s, socketProperties) }
func (SocketOption) JSONSchemaExtend(s *generator.Schema) { annotate(s, optionProperties) }
func (Containers) JSONSchemaExtend(s *generator.Schema)   { annotate(s, containersProperties) }

// A rule names somebody and allows something, as Parse demands.
func (Rule) JSONSchemaExtend(s *generator.Schema) {
	annotate(s, ruleProperties)
	anyone := generator.NewProperties()
	anyone.Set("anyone", &generator.Schema{Const: true})
	opens := []string{"algorithms", "sockets", "socket-options", "user-namespaces"}
	s.AnyOf = append([]*generator.Schema{{Required: []string{"anyone"}, Properties: anyone}}, oneRequired(s, append(opens, "anyone", "strict-exec")...)...)
	var open []*generator.Schema
	for _, key := range opens {
		open = append(open, &generator.Schema{Required: []string{key}})
	}
	s.AllOf = []*generator.Schema{{AnyOf: open}}
	s.DependentRequired = map[string][]string{"strict-exec": {"binaries"}}
}

// A grant gives something, and has a condition besides the platform, as Parse
// demands.
func (Grant) JSONSchemaExtend(s *generator.Schema) {
	annotate(s, grantProperties)
	s.AllOf = []*generator.Schema{{AnyOf: []*generator.Schema{{Required: []string{"rules"}}, {Required: []string{"socketcall"}}}}}
	s.AnyOf = oneRequired(s, "rules", "socketcall", "decided-by", "platforms")
	s.DependentRequired = map[string][]string{"decided-by": {"rules"}}
}

// An entry has a condition, as Parse demands.
func (Expected) JSONSchemaExtend(s *generator.Schema) {
	annotate(s, expectedProperties)
	s.AnyOf = oneRequired(s)
}

// oneRequired demands one of the keys that are not required.
func oneRequired(s *generator.Schema, except ...string) (all []*generator.Schema) {
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		if !slices.Contains(s.Required, p.Key) && !slices.Contains(except, p.Key) {
			all = append(all, &generator.Schema{Required: []string{p.Key}})
		}
	}
	return all
}

func shapeOf(all []property, key string) any {
	if i := slices.IndexFunc(all, func(p property) bool { return p.key == key }); i >= 0 {
		return all[i].shape
	}
	return nil
}

// annotate puts into a schema what the table says of its keys. A key that only
// one of them has gets no description, which a test finds.
func annotate(s *generator.Schema, all []property) {
	for _, p := range all {
		value, ok := s.Properties.Get(p.key)
		if !ok {
			s.Properties.Set(p.key, &generator.Schema{})
			continue
		}
		value.Description = p.about
		switch {
		case p.most > 0:
			most := uint64(p.most)
			value.MaxItems = &most
		case value.Type == "array":
			value.MinItems, value.UniqueItems = length(1), true
		}
	}
}

type (
	versionShape    struct{}
	policyShape     struct{}
	includeShape    struct{}
	ruleNameShape   struct{}
	binaryShape     struct{}
	pathShape       struct{}
	digestShape     struct{}
	userShape       struct{}
	unitShape       struct{}
	errnoShape      struct{}
	familyShape     struct{}
	capabilityShape struct{}
	presetShape     struct{}
	socketTypeShape struct{}
	constantShape   struct{}
	unconfinedShape struct{}
	socketcallShape struct{}
	decidedByShape  struct{}
	platformShape   struct{}
	containerShape  struct{}
	imageShape      struct{}
	namespaceShape  struct{}
	labelsShape     struct{}
	reasonShape     struct{}
	trueShape       struct{}
	choiceShape     struct{}
)

func length(n uint64) *uint64 { return &n }

func pattern(p string, most uint64) *generator.Schema {
	return &generator.Schema{Type: "string", Pattern: p, MinLength: length(1), MaxLength: length(most)}
}

func enum(words []string) *generator.Schema {
	s := &generator.Schema{Type: "string"}
	for _, w := range words {
		s.Enum = append(s.Enum, w)
	}
	return s
}

func (versionShape) JSONSchema() *generator.Schema  { return &generator.Schema{Const: 1} }
func (policyShape) JSONSchema() *generator.Schema   { return pattern(policyName().String(), MaxName) }
func (ruleNameShape) JSONSchema() *generator.Schema { return pattern(ruleName().String(), MaxName) }
func (includeShape) JSONSchema() *generator.Schema  { return pattern("", maxPath) }
func (pathShape) JSONSchema() *generator.Schema     { return pattern(`^/.*[^/]$`, maxPath) }
func (digestShape) JSONSchema() *generator.Schema   { return pattern(`^[0-9a-fA-F]{64}$`, 64) }
func (errnoShape) JSONSchema() *generator.Schema    { return enum(afalg.Errnos()) }
func (capabilityShape) JSONSchema() *generator.Schema {
	return enum(afalg.Capabilities())
}

func (familyShape) JSONSchema() *generator.Schema {
	return enum(slices.DeleteFunc(afalg.Families(), func(f string) bool { return f == "AF_ALG" }))
}

func (presetShape) JSONSchema() *generator.Schema     { return enum(Presets()) }
func (socketTypeShape) JSONSchema() *generator.Schema { return enum(afalg.SocketTypes()) }

// The schema sees a name or a number; which names there are is Parse's.
func (constantShape) JSONSchema() *generator.Schema {
	number := &generator.Schema{Type: "integer", Minimum: "0", Maximum: json.Number("2147483647")}
	return &generator.Schema{OneOf: []*generator.Schema{pattern(`^[A-Z][A-Z0-9_]*$`, 64), number}}
}

func (unitShape) JSONSchema() *generator.Schema {
	stem := strings.TrimSuffix(unitName().String(), "$")
	return pattern(stem+`\.(`+strings.Join(unitTypes, "|")+`)$`, maxUnit)
}

func (userShape) JSONSchema() *generator.Schema {
	uid := &generator.Schema{Type: "integer", Minimum: "0", Maximum: json.Number("4294967294")}
	either := strings.TrimSuffix(userName().String(), "$") + "$|" + decimal().String()
	return &generator.Schema{OneOf: []*generator.Schema{pattern(either, maxUser), uid}}
}

// The schema sees the characters of a name; the grammar is Parse's.
func (Algorithms) JSONSchema() *generator.Schema {
	s := &generator.Schema{Type: "object", Properties: generator.NewProperties(), AdditionalProperties: generator.FalseSchema, MinProperties: length(1)}
	name := pattern(`^([*]|[A-Za-z0-9_-]+([(][A-Za-z0-9_(),-]+[)])?)$`, afalg.MaxLongName)
	for _, t := range afalg.Types() {
		s.Properties.Set(string(t), &generator.Schema{Type: "array", Items: name, MinItems: length(1), UniqueItems: true})
	}
	return s
}

func (binaryShape) JSONSchema() *generator.Schema {
	return &generator.Schema{OneOf: []*generator.Schema{pathShape{}.JSONSchema(), reflector.Reflect(Binary{})}}
}

func (reasonShape) JSONSchema() *generator.Schema { return pattern("", maxReason) }

func (trueShape) JSONSchema() *generator.Schema {
	return &generator.Schema{Type: "boolean", Const: true}
}

func (choiceShape) JSONSchema() *generator.Schema { return &generator.Schema{Type: "boolean"} }

func (unconfinedShape) JSONSchema() *generator.Schema { return enum(Unconfineds()) }
func (socketcallShape) JSONSchema() *generator.Schema { return enum(socketcalls()) }
func (decidedByShape) JSONSchema() *generator.Schema  { return enum(decidedBys()) }
func (platformShape) JSONSchema() *generator.Schema   { return enum(Platforms()) }
func (containerShape) JSONSchema() *generator.Schema {
	return pattern(container().String(), maxContainer)
}
func (namespaceShape) JSONSchema() *generator.Schema {
	return pattern(namespace().String(), maxNamespace)
}
func (imageShape) JSONSchema() *generator.Schema {
	return pattern(`^[sS][hH][aA]256:[0-9a-fA-F]{64}$`, 71)
}

func (labelsShape) JSONSchema() *generator.Schema {
	key := pattern("", maxLabelKey)
	key.Not = &generator.Schema{Pattern: "^" + regexp.QuoteMeta(askPrefix)}
	value := &generator.Schema{Type: "string", MaxLength: length(maxLabelValue)}
	return &generator.Schema{Type: "object", MinProperties: length(1), PropertyNames: key, AdditionalProperties: value}
}

var reflector = &generator.Reflector{Anonymous: true, DoNotReference: true}

func generateSchema(t *testing.T) []byte {
	t.Helper()
	s := reflector.Reflect(file{})
	s.Title = "afalg-policy"
	s.Description = "Who may use which kernel algorithm through AF_ALG. Generated: run go generate ./internal/policy."
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestSchemaIsCurrent(t *testing.T) {
	want := generateSchema(t)
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is stale, run go generate ./internal/policy (-want +got):\n%s", schemaFile, diff)
	}
}

// validate asks the committed schema about a YAML file.
func validate(t *testing.T, src []byte) error {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("policy.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := yaml.Load(src, &value); err != nil {
		return err
	}
	asJSON, err := json.Marshal(value)
	if err != nil {
		return err
	}
	instance, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(instance)
}

func TestSchemaAccepts(t *testing.T) {
	samples := map[string][]byte{"everything": []byte(everything)}
	files, err := filepath.Glob("../../policies/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../../testdata/errors/warnings.yaml") {
		if samples[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, src := range samples {
		if err := validate(t, src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// blind lists the bad files whose faults no such schema sees, with the fault.
var blind = map[string]string{
	"anchors.yaml":       "anchors, aliases and tags are gone once the file is read",
	"version-float.yaml": "JSON has one kind of number",
}

func TestSchemaRejects(t *testing.T) {
	files, err := filepath.Glob("../../testdata/errors/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		if errs, _ := expectation(t, file, src); errs == "" {
			continue
		}
		switch err, reason := validate(t, src), blind[name]; {
		case err == nil && reason == "":
			t.Errorf("%s: accepted by the schema", name)
		case err != nil && reason != "":
			t.Errorf("%s is listed as %q, and rejected: %v", name, reason, err)
		}
	}
}
