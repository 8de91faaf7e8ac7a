package policy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestSchemaRejectsEach puts one fault into a file, so that each part of the
// schema must see its own.
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
		`"deny":{"`:             `"deny":{"zero-copy":"no","`,
		`"sha256":`:             `"sha1":`,
		`"allow":[{`:            `"allow":[{"rule":"nobody","algorithms":{"hash":["sha1"]}},{`,
		`"rule":"r",`:           `"rule":"r","anyone":"yes",`,
		`"rule":"r","`:          `"rule":"r","strict-exec":false,"`,
		`"refuse"`:              `"deny"`,
		`"unconfined":`:         `"privileged":`,
		`["granted"]`:           `[]`,
		`"granted"`:             `"*"`,
		`,"rules":["granted"]`:  ``,
		`,"rules":["granted"]}`: `,"socketcall":"keep"}`,
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

// The keys of the schema are those of Parse, mapping by mapping, and each is
// described.
func TestSchemaKeys(t *testing.T) {
	const rule = "version: 1\nname: x\nallow:\n- "
	for name, c := range map[string]struct {
		shape any
		src   string
	}{
		"policy":      {file{}, "1"},
		"deny":        {Deny{}, "version: 1\nname: x\ndeny: 1\n"},
		"rule":        {Rule{}, rule + "1\n"},
		"binary":      {Binary{}, rule + "{rule: r, algorithms: {hash: [sha1]}, binaries: [[]]}\n"},
		"containers":  {Containers{}, "version: 1\nname: x\ncontainers: 1\n"},
		"grant":       {Grant{}, "version: 1\nname: x\ncontainers: {grants: [1]}\n"},
		"expect-open": {Expected{}, "version: 1\nname: x\nexpect-open: [1]\n"},
		"algorithms":  {Algorithms{}, rule + "{rule: r, users: [root], algorithms: 1}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			for p := reflector.Reflect(c.shape).Properties.Oldest(); p != nil; p = p.Next() {
				keys = append(keys, p.Key)
				if p.Value.Description == "" && name != "algorithms" {
					t.Errorf("%s stands in the type or in the table, and not in the other", p.Key)
				}
			}
			_, _, err := Parse("p", []byte(c.src))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Text, "must be a mapping with "+oneOf(keys)+", not ") {
				t.Errorf("the schema has %s\nParse says %v", oneOf(keys), err)
			}
		})
	}
}
