package policy

import (
	"bytes"
	"encoding/json"
	"errors"
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

// The types below have the shape of a policy file, for the schema that editors
// check files with. The words and patterns are those that Parse checks with.
type (
	fileShape struct {
		Version versionShape   `json:"version" jsonschema_description:"The version of the policy language."`
		Name    policyShape    `json:"name" jsonschema_description:"The name of the policy, in reports and generated files."`
		Include []includeShape `json:"include,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Policies whose rules hold here too: builtin:NAME, or a path relative to this file."`
		Deny    *denyShape     `json:"deny,omitempty" jsonschema_description:"How AF_ALG is denied, and what is closed besides."`
		Allow   []ruleShape    `json:"allow,omitempty" jsonschema:"maxItems=10000" jsonschema_description:"Who may use which algorithm. Everything else is denied."`

		Containers *containersShape `json:"containers,omitempty" jsonschema_description:"How containers are started."`
	}
	denyShape struct {
		SocketErrno errnoShape    `json:"socket-errno,omitempty" jsonschema_description:"What socket() fails with; EAFNOSUPPORT by default, as in a kernel without AF_ALG."`
		BindErrno   errnoShape    `json:"bind-errno,omitempty" jsonschema_description:"What bind() fails with; ENOENT by default, as in a kernel without the algorithm."`
		Families    []familyShape `json:"families,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Further socket families to close, to everybody."`
	}
	ruleShape struct {
		Rule         ruleNameShape     `json:"rule" jsonschema_description:"The name of the rule, for --grant and --accept."`
		Anyone       bool              `json:"anyone,omitempty" jsonschema_description:"True for a rule without conditions."`
		Binaries     []binaryShape     `json:"binaries,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these executables."`
		Users        []userShape       `json:"users,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these users, by name or uid."`
		Capabilities []capabilityShape `json:"capabilities,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these capabilities in the initial user namespace."`
		Units        []unitShape       `json:"units,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these systemd units."`
		Algorithms   algorithmsShape   `json:"algorithms" jsonschema_description:"The algorithms, by type and exact name."`
	}
	pathAndDigestShape struct {
		Path   pathShape   `json:"path" jsonschema_description:"The executable itself, not a symbolic link to it."`
		SHA256 digestShape `json:"sha256,omitempty" jsonschema_description:"The SHA-256 digest of its content."`
	}
	algorithmsShape struct {
		AEAD     []algorithmShape `json:"aead,omitempty" jsonschema:"minItems=1,uniqueItems=true"`
		Hash     []algorithmShape `json:"hash,omitempty" jsonschema:"minItems=1,uniqueItems=true"`
		RNG      []algorithmShape `json:"rng,omitempty" jsonschema:"minItems=1,uniqueItems=true"`
		Skcipher []algorithmShape `json:"skcipher,omitempty" jsonschema:"minItems=1,uniqueItems=true"`
	}
	containersShape struct {
		Unconfined unconfinedShape `json:"unconfined,omitempty" jsonschema_description:"What happens to a container without a seccomp profile; refuse by default."`
		Grants     []grantShape    `json:"grants,omitempty" jsonschema:"maxItems=10000" jsonschema_description:"Which containers hold which rules. No other container holds any."`
	}
	grantShape struct {
		Rules       []ruleNameShape  `json:"rules" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"The names of the rules, of this policy or of one that it includes."`
		Platforms   []platformShape  `json:"platforms,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: started by one of these; oci is a runtime that is called by hand."`
		Names       []containerShape `json:"names,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these names of the container."`
		Images      []imageShape     `json:"images,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these digests of the image, of its configuration or its manifest."`
		Namespaces  []namespaceShape `json:"namespaces,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these namespaces of Kubernetes or of containerd."`
		Pods        []containerShape `json:"pods,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Condition: one of these names of the pod."`
		Labels      labelsShape      `json:"labels,omitempty" jsonschema_description:"Condition: all of these labels, with these values."`
		Annotations labelsShape      `json:"annotations,omitempty" jsonschema_description:"Condition: all of these annotations, with these values."`
	}

	versionShape    struct{}
	policyShape     struct{}
	includeShape    struct{}
	ruleNameShape   struct{}
	binaryShape     struct{}
	pathShape       struct{}
	digestShape     struct{}
	userShape       struct{}
	unitShape       struct{}
	algorithmShape  struct{}
	errnoShape      struct{}
	familyShape     struct{}
	capabilityShape struct{}
	unconfinedShape struct{}
	platformShape   struct{}
	containerShape  struct{}
	imageShape      struct{}
	namespaceShape  struct{}
	labelsShape     struct{}
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
func (policyShape) JSONSchema() *generator.Schema   { return pattern(policyName.String(), maxName) }
func (ruleNameShape) JSONSchema() *generator.Schema { return pattern(ruleName.String(), maxName) }
func (includeShape) JSONSchema() *generator.Schema  { return pattern("", maxPath) }
func (pathShape) JSONSchema() *generator.Schema     { return pattern(`^/.*[^/]$`, maxPath) }
func (digestShape) JSONSchema() *generator.Schema   { return pattern(`^[0-9a-fA-F]{64}$`, 64) }
func (errnoShape) JSONSchema() *generator.Schema    { return enum(afalg.Errnos()) }
func (capabilityShape) JSONSchema() *generator.Schema {
	return enum(capabilities)
}

func (familyShape) JSONSchema() *generator.Schema {
	return enum(slices.DeleteFunc(afalg.Families(), func(f string) bool { return f == "AF_ALG" }))
}

func (unitShape) JSONSchema() *generator.Schema {
	stem := strings.TrimSuffix(unitName.String(), "$")
	return pattern(stem+`\.(`+strings.Join(unitTypes, "|")+`)$`, maxUnit)
}

func (userShape) JSONSchema() *generator.Schema {
	uid := &generator.Schema{Type: "integer", Minimum: "0", Maximum: json.Number("4294967294")}
	either := strings.TrimSuffix(userName.String(), "$") + "$|" + decimal.String()
	return &generator.Schema{OneOf: []*generator.Schema{pattern(either, maxUser), uid}}
}

// The schema sees the characters of a name; the grammar is Parse's.
func (algorithmShape) JSONSchema() *generator.Schema {
	return pattern(`^([*]|[A-Za-z0-9_-]+([(][A-Za-z0-9_(),-]+[)])?)$`, afalg.MaxLongName)
}

func (binaryShape) JSONSchema() *generator.Schema {
	return &generator.Schema{OneOf: []*generator.Schema{pathShape{}.JSONSchema(), reflector.Reflect(pathAndDigestShape{})}}
}

func (unconfinedShape) JSONSchema() *generator.Schema { return enum(Unconfineds()) }
func (platformShape) JSONSchema() *generator.Schema   { return enum(Platforms()) }
func (containerShape) JSONSchema() *generator.Schema {
	return pattern(container.String(), maxContainer)
}
func (namespaceShape) JSONSchema() *generator.Schema {
	return pattern(namespace.String(), maxNamespace)
}
func (imageShape) JSONSchema() *generator.Schema {
	return pattern(`^[sS][hH][aA]256:[0-9a-fA-F]{64}$`, 71)
}

func (labelsShape) JSONSchema() *generator.Schema {
	key := pattern("", maxLabelKey)
	key.Not = &generator.Schema{Pattern: "^" + regexp.QuoteMeta(AskPrefix)}
	value := &generator.Schema{Type: "string", MaxLength: length(maxLabelValue)}
	return &generator.Schema{Type: "object", MinProperties: length(1), PropertyNames: key, AdditionalProperties: value}
}

// JSONSchemaExtend asks for a condition besides the platform, as Parse does.
func (grantShape) JSONSchemaExtend(s *generator.Schema) {
	for _, condition := range []string{"names", "images", "namespaces", "pods", "labels", "annotations"} {
		s.AnyOf = append(s.AnyOf, &generator.Schema{Required: []string{condition}})
	}
}

func (algorithmsShape) JSONSchemaExtend(s *generator.Schema) { s.MinProperties = length(1) }

// JSONSchemaExtend asks for a subject, as Parse does.
func (ruleShape) JSONSchemaExtend(s *generator.Schema) {
	anyone := generator.NewProperties()
	anyone.Set("anyone", &generator.Schema{Const: true})
	s.AnyOf = []*generator.Schema{{Required: []string{"anyone"}, Properties: anyone}}
	for _, condition := range []string{"binaries", "users", "capabilities", "units"} {
		s.AnyOf = append(s.AnyOf, &generator.Schema{Required: []string{condition}})
	}
}

var reflector = &generator.Reflector{Anonymous: true, DoNotReference: true}

func generateSchema(t *testing.T) []byte {
	t.Helper()
	s := reflector.Reflect(fileShape{})
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

// blind lists the bad files whose faults no schema of this kind sees, with the
// fault.
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

// One fault a file, so that each part of the schema must see its own.
func TestSchemaRejectsEach(t *testing.T) {
	good := map[string]any{
		"version": 1, "name": "x",
		"deny": map[string]any{"socket-errno": "EPERM", "families": []any{"AF_KEY"}},
		"allow": []any{map[string]any{
			"rule": "r", "binaries": []any{map[string]any{"path": "/a", "sha256": digest}}, "users": []any{"root", 0},
			"capabilities": []any{"CAP_BPF"}, "units": []any{"a.service"}, "algorithms": map[string]any{"hash": []any{"sha1"}},
		}},
	}
	good["containers"] = map[string]any{
		"unconfined": "refuse",
		"grants": []any{map[string]any{
			"rules": []any{"granted"}, "platforms": []any{"docker"}, "names": []any{"web"}, "images": []any{"sha256:" + digestB},
			"namespaces": []any{"prod"}, "pods": []any{"web-0"}, "labels": map[string]any{"app": ""}, "annotations": map[string]any{"note": "v"},
		}},
	}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	check := func(src string) (schema, parse error) {
		_, _, parse = Parse("p", []byte(src))
		return validate(t, []byte(src)), parse
	}
	if schema, parse := check(string(text)); schema != nil || parse != nil {
		t.Fatalf("the good sample: %v, %v", schema, parse)
	}
	for old, bad := range map[string]string{
		`"version":1`:           `"version":2`,
		`"name":"x"`:            `"name":"X"`,
		`"name":"x",`:           ``,
		`"EPERM"`:               `"EPERMIT"`,
		`"AF_KEY"`:              `"AF_ALG"`,
		`["AF_KEY"]`:            `[]`,
		`"rule":"r"`:            `"rule":"../r"`,
		`"path":"/a"`:           `"path":"a"`,
		digest:                  digest[1:],
		`"root"`:                `"a b"`,
		`0]`:                    `4294967295]`,
		`["root",0]`:            `[]`,
		`"CAP_BPF"`:             `"BPF"`,
		`"a.service"`:           `"a.timer"`,
		`"sha1"`:                `"sha*"`,
		`["sha1"]`:              `["sha1","sha1"]`,
		`{"hash":["sha1"]}`:     `{}`,
		`"hash"`:                `"digest"`,
		`"algorithms":`:         `"algorithm":`,
		`"units":["a.service"]`: `"unit":["a.service"]`,
		`"allow":[`:             `"allow":["",`,
		`"deny":{`:              `"deny":{"errno":"EPERM",`,
		`"sha256":`:             `"sha1":`,
		`"allow":[{`:            `"allow":[{"rule":"nobody","algorithms":{"hash":["sha1"]}},{`,
		`"rule":"r",`:           `"rule":"r","anyone":"yes",`,
		`"refuse"`:              `"deny"`,
		`"unconfined":`:         `"privileged":`,
		`["granted"]`:           `[]`,
		`"granted"`:             `"*"`,
		`,"rules":["granted"]`:  ``,
		`"docker"`:              `"Docker"`,
		`"names":["web"]`:       `"names":["/web"]`,
		`"names":[`:             `"name":[`,
		`"sha256:` + digestB:    `"sha512:` + digestB,
		`["prod"]`:              `["prod."]`,
		`["web-0"]`:             `["web-*"]`,
		`{"app":""}`:            `{}`,
		`"app":""`:              `"":"x"`,
		`"app":`:                `"io.afalg-policy.app":`,
		`"app":"`:               `"app":"` + strings.Repeat("v", maxLabelValue+1),
		`"note":"v"`:            `"note":1`,
		`"note"`:                `"` + strings.Repeat("k", maxLabelKey+1) + `"`,
		`"grants":[{`:           `"grants":[{"rules":["a"],"platforms":["docker"]},{`,
		`"grants":[`:            `"grants":["",`,
	} {
		src := strings.Replace(string(text), old, bad, 1)
		if src == string(text) {
			t.Errorf("%s is not in the sample", old)
			continue
		}
		if schema, parse := check(src); schema == nil || parse == nil {
			t.Errorf("%s: schema says %v, Parse says %v", bad, schema, parse)
		}
	}
}

// The keys of the schema are those of Parse, mapping by mapping.
func TestSchemaKeys(t *testing.T) {
	const rule = "version: 1\nname: x\nallow:\n- "
	for name, c := range map[string]struct {
		shape any
		src   string
	}{
		"policy":     {fileShape{}, "1"},
		"deny":       {denyShape{}, "version: 1\nname: x\ndeny: 1\n"},
		"rule":       {ruleShape{}, rule + "1\n"},
		"binary":     {pathAndDigestShape{}, rule + "{rule: r, algorithms: {hash: [sha1]}, binaries: [[]]}\n"},
		"containers": {containersShape{}, "version: 1\nname: x\ncontainers: 1\n"},
		"grant":      {grantShape{}, "version: 1\nname: x\ncontainers: {grants: [1]}\n"},
		"algorithms": {algorithmsShape{}, rule + "{rule: r, users: [root], algorithms: 1}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			for p := reflector.Reflect(c.shape).Properties.Oldest(); p != nil; p = p.Next() {
				keys = append(keys, p.Key)
			}
			_, _, err := Parse("p", []byte(c.src))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Text, "must be a mapping with "+oneOf(keys)+", not ") {
				t.Errorf("the schema has %s\nParse says %v", oneOf(keys), err)
			}
		})
	}
}
