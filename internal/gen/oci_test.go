package gen

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// shortProfile stands for a hardened profile.
func shortProfile(*specs.LinuxSeccomp, []string) (*specs.LinuxSeccomp, []Gap, error) {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"<&>"}}, nil, nil
}

func TestOCILayout(t *testing.T) {
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
			got, _, err := patchOCI([]byte(tt.in), shortProfile)
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

func TestOCIErrors(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	tests := []struct{ name, in, want string }{
		{"empty", "", "1:1: unexpected end of JSON input"},
		{"array", "[]", "1:1: the config is no JSON object"},
		{"comment", "{\n// x\n\"linux\":{}}", "2:1: invalid character '/' looking for beginning of object key string"},
		{"trailing comma", "{\"linux\":{},}", "1:13: invalid character '}' looking for beginning of object key string"},
		{"junk behind", "{\"linux\":{}} x", "1:14: invalid character 'x' after top-level value"},
		{"byte order mark", "\ufeff{}", "1:1: invalid character 'ï' looking for beginning of value"},
		{"duplicate", "{\"linux\":{},\n \"linux\":{}}", `2:2: key "linux" stands twice in one object`},
		{"duplicate by escape", `{"linux":{},"lin\u0075x":{}}`, `1:13: key "linux" stands twice in one object`},
		{"duplicate far away", `{"linux":{},"a":[{"b":1,"b":2}]}`, `1:25: key "b" stands twice in one object`},
		{"another case", `{"linux":{},"Linux":{}}`, `1:13: key "Linux": some runtimes read it as "linux" and others do not`},
		{"long s", `{"linux":{"\u017feccomp":null}}`, `1:11: key "ſeccomp": some runtimes read it as "seccomp" and others do not`},
		{"capabilities in another case", `{"linux":{},"Process":{}}`, `1:13: key "Process": some runtimes read it as "process" and others do not`},
		{"no linux", `{"process":{}}`, "the config has no linux section, which holds the seccomp profile"},
		{"windows", `{"windows":{}}`, "1:2: a config for windows, without linux: seccomp does not reach it"},
		{"solaris", `{"solaris":{}}`, "1:2: a config for solaris, without linux: seccomp does not reach it"},
		{"vm", `{"vm":{}}`, "1:2: a config for vm, without linux: seccomp does not reach it"},
		{"zos", `{"zos":{}}`, "1:2: a config for zos, without linux: seccomp does not reach it"},
		{"linux is null", `{"linux":null}`, "1:10: linux is no JSON object"},
		{"profile is a path", `{"linux":{"seccomp":"/x.json"}}`,
			"1:21: linux.seccomp: json: cannot unmarshal string into Go value of type specs.LinuxSeccomp"},
		{"listener", `{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/a.sock"}}}`,
			"1:21: linux.seccomp has a listener, /run/a.sock: what it answers cannot be proved"},
		{"unknown key", `{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","new":1}}}`, `1:55: linux.seccomp: unknown key "new"`},
		{"key in another case", `{"linux":{"seccomp":{"DefaultAction":"SCMP_ACT_ALLOW"}}}`, `1:22: linux.seccomp: unknown key "DefaultAction"`},
		{"capabilities of another type", `{"linux":{},"process":{"capabilities":{"bounding":"all"}}}`,
			"1:51: process.capabilities.bounding: json: cannot unmarshal string into Go value of type []string"},
		{"deep", `{"linux":{},"a":` + deep + `}`, "1:10016: invalid character '[' exceeded max depth"},
		{"large", `{"linux":{}}` + strings.Repeat(" ", 16<<20), "16777228 bytes of JSON: the limit is 16777216"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := patchOCI([]byte(tt.in), shortProfile)
			var fault *ConfigError
			if !errors.As(err, &fault) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if got != nil {
				t.Errorf("output beside an error: %s", got)
			}
		})
	}
}

// What the hardener is told of the config.
func TestOCIFacts(t *testing.T) {
	tests := []struct {
		name, in string
		base     bool
		caps     []string
		gaps     int
	}{
		{"nothing", `{"linux":{}}`, false, nil, 1},
		{"null", `{"linux":{"seccomp":null},"process":null}`, false, nil, 1},
		{"capabilities", `{"process":{"capabilities":{"effective":["CAP_KILL"],"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"]}},"linux":{}}`,
			false, []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, 1},
		{"profile", `{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_LOG"}}}`, true, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			called := false
			_, gaps, err := patchOCI([]byte(tt.in), func(base *specs.LinuxSeccomp, caps []string) (*specs.LinuxSeccomp, []Gap, error) {
				called = true
				if tt.base != (base != nil) || base != nil && base.DefaultAction != specs.ActLog {
					t.Errorf("base %+v", base)
				}
				if diff := cmp.Diff(tt.caps, caps); diff != "" {
					t.Errorf("capabilities: -want +got:\n%s", diff)
				}
				return shortProfile(base, caps)
			})
			if err != nil || !called || len(gaps) != tt.gaps {
				t.Errorf("error %v, called %t, gaps %v", err, called, gaps)
			}
		})
	}
}

func TestOCIHardenerFails(t *testing.T) {
	wrong := errors.New("no")
	out, gaps, err := patchOCI([]byte(`{"linux":{}}`), func(*specs.LinuxSeccomp, []string) (*specs.LinuxSeccomp, []Gap, error) {
		return nil, []Gap{{Wider, "r", nil, ""}}, wrong
	})
	if !errors.Is(err, wrong) || out != nil || len(gaps) != 2 {
		t.Errorf("%s, %v, %v", out, gaps, err)
	}
}

// FuzzOCI: whatever is accepted changes in linux.seccomp alone, and is
// accepted again with the same result.
func FuzzOCI(f *testing.F) {
	for _, name := range ociConfigs {
		src, err := os.ReadFile(filepath.Join("testdata", "oci", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("{\r\n\"linux\":{ }}"))
	f.Add([]byte(`{"linux":{"\u0073eccomp":null},"LINUX ":{}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		once, _, err := patchOCI(src, shortProfile)
		if err != nil {
			return
		}
		if err := onlySeccompDiffers(src, once); err != nil {
			t.Errorf("%s\n%s\n%v", src, once, err)
		}
		twice, _, err := patchOCI(once, shortProfile)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("again: %v\n%s\n%s", err, once, twice)
		}
	})
}

var ociConfigs = []string{"runc-spec", "bare", "with-profile"}

func TestOCIGolden(t *testing.T) {
	for _, name := range ociConfigs {
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join("testdata", "oci", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			patched, _, err := patchOCI(src, shortProfile)
			if err != nil {
				t.Fatal(err)
			}
			compareTree(t, filepath.Join("testdata", "oci", name), []File{{"config.json", patched}})
		})
	}
}

// The real hardener's profile is what ends up in the config.
func TestOCIHardens(t *testing.T) {
	for _, name := range ociConfigs {
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join("testdata", "oci", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			files, _, err := OCI(wirelessPlan(), src, SeccompOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := files[0].Data
			if err := onlySeccompDiffers(src, got); err != nil {
				t.Error(err)
			}
			before, after := decodeSpec(t, src), decodeSpec(t, got)
			host := profile.Host{Arch: specs.ArchX86_64, Caps: before.Process.Capabilities.Bounding}
			want, _, err := Harden(wirelessPlan(), before.Linux.Seccomp, SeccompOptions{Host: host})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, after.Linux.Seccomp); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func decodeSpec(t *testing.T, src []byte) specs.Spec {
	t.Helper()
	spec := specs.Spec{}
	if err := json.Unmarshal(src, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.Process == nil {
		spec.Process = &specs.Process{}
	}
	if spec.Process.Capabilities == nil {
		spec.Process.Capabilities = &specs.LinuxCapabilities{}
	}
	return spec
}

func TestOCIMachine(t *testing.T) {
	tests := []struct {
		arches []specs.Arch
		want   specs.Arch
	}{
		{nil, specs.ArchX86_64},
		{[]specs.Arch{specs.ArchARM, specs.ArchAARCH64}, specs.ArchAARCH64},
		{[]specs.Arch{specs.ArchX86}, specs.ArchX86_64},
	}
	for _, tt := range tests {
		if got := machineOf(&specs.LinuxSeccomp{Architectures: tt.arches}); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.arches, got, tt.want)
		}
	}
	if got := machineOf(nil); got != specs.ArchX86_64 {
		t.Errorf("no profile: %s", got)
	}
}

func patchOCI(config []byte, harden hardenFunc) ([]byte, []Gap, error) {
	c, err := ReadConfig(config)
	if err != nil {
		return nil, nil, err
	}
	return c.patch(harden)
}
