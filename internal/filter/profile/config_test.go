package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// short stands for a hardened profile.
var short = &Profile{DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"<&>"}}

// patched reads a config as those who write it again do, and gives it the short
// profile.
func patched(config []byte) ([]byte, error) {
	c, err := ReadConfig(config)
	if err != nil {
		return nil, err
	}
	if err := c.ForLinux(); err != nil {
		return nil, err
	}
	if _, err := c.StrictProfile(); err != nil {
		return nil, err
	}
	change, err := c.Set(short)
	if err != nil {
		return nil, err
	}
	return jsontext.Apply(config, change), nil
}

func TestConfigLayout(t *testing.T) {
	const compact = `{"defaultAction":"SCMP_ACT_ERRNO","flags":["<&>"]}`
	tests := []struct{ name, in, want string }{
		{"compact", `{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},"x":1.50}}`,
			`{"linux":{"seccomp":` + compact + `,"x":1.50}}`},
		{"compact, missing", `{"linux":{"x":1e2},"y":[1, 2]}`,
			`{"linux":{"x":1e2,"seccomp":` + compact + `},"y":[1, 2]}`},
		{"compact, empty", `{"linux":{}}`, `{"linux":{"seccomp":` + compact + `}}`},
		{"null", `{"linux": {"seccomp": null}}`, `{"linux": {"seccomp": ` + compact + `}}`},
		{"one line with spaces", `{ "linux": { "a": 1, "b": 2 } }`, `{ "linux": { "a": 1, "b": 2, "seccomp": ` + compact + ` } }`},
		{"tabs", "{\n\t\"linux\": {\n\t\t\"x\": 10000000000000000000001\n\t}\n}\n",
			"{\n\t\"linux\": {\n\t\t\"x\": 10000000000000000000001,\n\t\t\"seccomp\": {\n\t\t\t\"defaultAction\": \"SCMP_ACT_ERRNO\",\n\t\t\t\"flags\": [\n\t\t\t\t\"<&>\"\n\t\t\t]\n\t\t}\n\t}\n}\n"},
		{"three spaces, CRLF", "{\r\n   \"linux\" : {\r\n      \"seccomp\" : {\"defaultAction\":\"SCMP_ACT_ALLOW\"}\r\n   }\r\n}",
			"{\r\n   \"linux\" : {\r\n      \"seccomp\" : {\r\n         \"defaultAction\": \"SCMP_ACT_ERRNO\",\r\n         \"flags\": [\r\n            \"<&>\"\r\n         ]\r\n      }\r\n   }\r\n}"},
		{"indented, empty", "{\n  \"linux\": {}\n}",
			"{\n  \"linux\": {\n    \"seccomp\": {\n      \"defaultAction\": \"SCMP_ACT_ERRNO\",\n      \"flags\": [\n        \"<&>\"\n      ]\n    }\n  }\n}"},
		{"indented, empty over lines", "{\n  \"linux\": {\n  }\n}",
			"{\n  \"linux\": {\n    \"seccomp\": {\n      \"defaultAction\": \"SCMP_ACT_ERRNO\",\n      \"flags\": [\n        \"<&>\"\n      ]\n    }\n  }\n}"},
		{"no indentation", "{\n\"linux\":\n{\n\"a\":1\n}}",
			"{\n\"linux\":\n{\n\"a\":1,\n\"seccomp\":{\n\t\"defaultAction\": \"SCMP_ACT_ERRNO\",\n\t\"flags\": [\n\t\t\"<&>\"\n\t]\n}\n}}"},
		{"escaped key", `{"l\u0069nux":{"s\u0065ccomp":null,"ä\u0000":"\ud800"}}`,
			`{"l\u0069nux":{"s\u0065ccomp":` + compact + `,"ä\u0000":"\ud800"}}`},
		{"keys of that name elsewhere", `{"a":{"linux":{"seccomp":1}},"linux":{"b":{"seccomp":2}}}`,
			`{"a":{"linux":{"seccomp":1}},"linux":{"b":{"seccomp":2},"seccomp":` + compact + `}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := patched([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err := onlySeccompDiffers([]byte(tt.in), got); err != nil {
				t.Error(err)
			}
		})
	}
}

// onlySeccompDiffers compares two configs as a reader of JSON sees them, and
// as bytes around the one change.
func onlySeccompDiffers(before, after []byte) error {
	a, err := withoutSeccomp(before)
	if err != nil {
		return err
	}
	b, err := withoutSeccomp(after)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(a, b); diff != "" {
		return errors.New("outside of linux.seccomp: " + diff)
	}
	// Cut what is common at both ends; what was between in the old text must
	// be the old value alone, or nothing.
	start := 0
	for start < len(before) && start < len(after) && before[start] == after[start] {
		start++
	}
	end := 0
	for end < len(before)-start && end < len(after)-start && before[len(before)-1-end] == after[len(after)-1-end] {
		end++
	}
	var old struct {
		Linux struct{ Seccomp json.RawMessage }
	}
	if err := json.Unmarshal(before, &old); err != nil {
		return err
	}
	if gone := before[start : len(before)-end]; !bytes.Contains(old.Linux.Seccomp, gone) {
		return errors.New("bytes outside of the value are gone: " + string(gone))
	}
	return nil
}

func withoutSeccomp(src []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var config map[string]any
	if err := d.Decode(&config); err != nil {
		return nil, err
	}
	if linux, ok := config["linux"].(map[string]any); ok {
		delete(linux, "seccomp")
	}
	return config, nil
}

func TestConfigErrors(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	tests := []struct{ name, in, want string }{
		{"empty", "", "1:1: unexpected end of JSON input"},
		{"array", "[]", "1:1: the config is no JSON object"},
		{"comment", "{\n// x\n\"linux\":{}}", "2:1: invalid character '/' looking for beginning of object key string"},
		{"trailing comma", "{\"linux\":{},}", "1:13: invalid character '}' looking for beginning of object key string"},
		{"junk behind", "{\"linux\":{}} x", "1:14: invalid character 'x' after top-level value"},
		{"byte order mark", "\ufeff{}", "1:1: the text begins with a byte order mark, which container runtimes refuse: remove it, as with sed -i '1s/^\\xEF\\xBB\\xBF//' FILE"},
		{"duplicate", "{\"linux\":{},\n \"linux\":{}}", `2:2: key "linux" stands twice in one object`},
		{"duplicate by escape", `{"linux":{},"lin\u0075x":{}}`, `1:13: key "linux" stands twice in one object`},
		{"duplicate far away", `{"linux":{},"a":[{"b":1,"b":2}]}`, `1:25: key "b" stands twice in one object`},
		{"another case", `{"linux":{},"Linux":{}}`, `1:13: key "Linux": runc reads it as "linux", and crun ignores it`},
		{"long s", `{"linux":{"\u017feccomp":null}}`, `1:11: key "ſeccomp": runc reads it as "seccomp", and crun ignores it`},
		{"capabilities in another case", `{"linux":{},"Process":{}}`, `1:13: key "Process": runc reads it as "process", and crun ignores it`},
		{"no linux", `{"process":{}}`, "the config has no linux section, which holds the seccomp profile"},
		{"windows", `{"windows":{}}`, "1:2: a config for windows, without linux: seccomp does not reach it"},
		{"solaris", `{"solaris":{}}`, "1:2: a config for solaris, without linux: seccomp does not reach it"},
		{"vm", `{"vm":{}}`, "1:2: a config for vm, without linux: seccomp does not reach it"},
		{"zos", `{"zos":{}}`, "1:2: a config for zos, without linux: seccomp does not reach it"},
		{"linux is null", `{"linux":null}`, "1:10: linux is no JSON object"},
		{"profile is a path", `{"linux":{"seccomp":"/x.json"}}`,
			"1:21: linux.seccomp cannot be a JSON string"},
		{"unknown key", `{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","new":1}}}`, `1:55: unknown key "new", which the runtimes ignore: correct it, or remove it`},
		{"key in another case", `{"linux":{"seccomp":{"DefaultAction":"SCMP_ACT_ALLOW"}}}`, `1:22: key "DefaultAction": runc reads it as "defaultAction", and crun ignores it`},
		{"capabilities of another type", `{"linux":{},"process":{"capabilities":{"bounding":"all"}}}`,
			"1:51: process.capabilities.bounding: json: cannot unmarshal string into Go value of type []string"},
		{"a mount in another case", `{"linux":{},"mounts":[{"destination":"/a","Source":"/b"}]}`, `1:43: key "Source": runc reads it as "source", and crun ignores it`},
		{"annotations in another case", `{"linux":{},"Annotations":{}}`, `1:13: key "Annotations": runc reads it as "annotations", and crun ignores it`},
		{"behind a character of two bytes", `{"ä":1,"linux":{},"Linux":{}}`, `1:19: key "Linux": runc reads it as "linux", and crun ignores it`},
		{"process is a list", `{"linux":{},"process":[]}`, "1:23: process is no JSON object"},
		{"a root of another type", `{"linux":{},"root":{"path":1}}`, "1:28: root.path: json: cannot unmarshal number into Go value of type string"},
		{"an annotation of another type", `{"linux":{},"annotations":{"a":1}}`, "1:27: annotations: json: cannot unmarshal number into Go value of type string"},
		{"deep", `{"linux":{},"a":` + deep + `}`, "1:10016: invalid character '[' exceeded max depth"},
		{"large", `{"linux":{}}` + strings.Repeat(" ", 16<<20), "16777228 bytes of JSON: the limit is 16777216"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := patched([]byte(tt.in))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if got != nil {
				t.Errorf("output beside an error: %s", got)
			}
		})
	}
}

// TestConfigFacts: what is looked at besides the profile.
func TestConfigFacts(t *testing.T) {
	const text = `{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},"process":{"env":["A=b"],"capabilities":{"effective":["CAP_KILL"],"bounding":["CAP_CHOWN"]}},
		"mounts":[{"destination":"/a","type":"bind","source":"b","options":["ro"]},{"destination":"/c"}],"annotations":{"k":"v","K":"w"},
		"linux":{"seccomp":{"defaultAction":"SCMP_ACT_LOG","listenerMetadata":"m"}}}`
	c, err := ReadConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Version: "1.0.2", Root: "rootfs", Env: []string{"A=b"}, Bounding: []string{"CAP_CHOWN"},
		Mounts:      []Mount{{"/a", "b", "bind", []string{"ro"}}, {Destination: "/c"}},
		Annotations: map[string]string{"k": "v", "K": "w"},
	}
	if diff := cmp.Diff(want, *c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	p, err := c.StrictProfile()
	if err != nil || p.DefaultAction != specs.ActLog || c.ListenerMetadata() != "m" {
		t.Errorf("%+v, %v, metadata %q", p, err, c.ListenerMetadata())
	}
	for _, none := range []string{`{}`, `{"linux":null,"process":null,"root":null,"mounts":null,"annotations":null}`, `{"linux":{"seccomp":null}}`, `{"linux":{"seccomp":{}}}`} {
		c, err := ReadConfig([]byte(none))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := c.Profile(); p != nil || err != nil {
			t.Errorf("%s: %+v, %v", none, p, err)
		}
	}
}

// FuzzConfig: whatever is accepted changes in linux.seccomp alone, and is
// accepted again with the same result.
func FuzzConfig(f *testing.F) {
	for _, name := range []string{"runc-spec", "bare", "with-profile"} {
		src, err := os.ReadFile(filepath.Join("..", "..", "gen", "testdata", "oci", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("{\r\n\"linux\":{ }}"))
	f.Add([]byte(`{"linux":{"\u0073eccomp":null},"LINUX ":{}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		once, err := patched(src)
		if err != nil {
			return
		}
		if err := onlySeccompDiffers(src, once); err != nil {
			t.Errorf("%s\n%s\n%v", src, once, err)
		}
		twice, err := patched(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("again: %v\n%s\n%s", err, once, twice)
		}
	})
}

func TestFilterAnnotation(t *testing.T) {
	for _, tt := range []struct{ annotations, want string }{
		{`{"run.oci.seccomp_bpf_data": "BgAAAAAA/38="}`, `1:18: the annotation "run.oci.seccomp_bpf_data"`},
		{`{"a": "b", "run.oci.seccomp.receiver": "/run/other.sock"}`, `1:28: the annotation "run.oci.seccomp.receiver"`},
		{`{"run.oci.seccomp.plugins": "plugin.so"}`, `the annotation "run.oci.seccomp.plugins"`},
		{`{"run.oci.seccomp.later": ""}`, `the annotation "run.oci.seccomp.later"`},
		{`{"run\u002eoci.seccomp_bpf_data": ""}`, `the annotation "run.oci.seccomp_bpf_data"`},
		{`["run.oci.seccomp_bpf_data"]`, "1:17: annotations is no JSON object"},
		{`{"run.oci.seccomp_fail_unknown_syscall": "1", "run.oci.keep_original_groups": "1"}`, ""},
		{`null`, ""},
		{`{}`, ""},
	} {
		_, err := ReadConfig([]byte(`{"annotations": ` + tt.annotations + `}`))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.annotations, err, tt.want)
		}
	}
	if _, err := ReadConfig([]byte(`{}`)); err != nil {
		t.Errorf("a config without annotations: %v", err)
	}
}
