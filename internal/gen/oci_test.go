package gen

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

var ociConfigs = []string{"runc-spec", "bare", "with-profile"}

func TestOCIGolden(t *testing.T) {
	for _, name := range ociConfigs {
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join("testdata", "oci", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := profile.ReadConfig(src)
			if err != nil {
				t.Fatal(err)
			}
			change, err := c.Set(&profile.Profile{DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"<&>"}})
			if err != nil {
				t.Fatal(err)
			}
			patched := jsontext.Apply(src, change)
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
			files, _, err := OCI(wirelessPlan(), config(t, src), SeccompOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := files[0].Data
			if diff := cmp.Diff(withoutSeccomp(t, src), withoutSeccomp(t, got)); diff != "" {
				t.Errorf("outside of linux.seccomp: -before +after:\n%s", diff)
			}
			before, after := decodeSpec(t, src), decodeSpec(t, got)
			host := profile.Host{Arch: specs.ArchX86_64, Caps: before.Process.Capabilities.Bounding}
			base := profile.Docker()
			if before.Linux.Seccomp != nil {
				if base, err = profile.OfSpec(before.Linux.Seccomp); err != nil {
					t.Fatal(err)
				}
			}
			hardened, _, err := harden.Harden(wirelessPlan(), base, harden.Options{Host: host})
			if err != nil {
				t.Fatal(err)
			}
			want, err := hardened.Resolve(host)
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

func config(t *testing.T, src []byte) *profile.Config {
	t.Helper()
	c, err := profile.ReadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func withoutSeccomp(t *testing.T, src []byte) map[string]any {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal(src, &config); err != nil {
		t.Fatal(err)
	}
	if linux, ok := config["linux"].(map[string]any); ok {
		delete(linux, "seccomp")
	}
	return config
}

// TestOCIMachine: the first machine that a profile names, unless the options do.
func TestOCIMachine(t *testing.T) {
	tests := []struct {
		arches []specs.Arch
		want   specs.Arch
	}{
		{nil, ""},
		{[]specs.Arch{specs.ArchARM, specs.ArchAARCH64}, specs.ArchAARCH64},
		{[]specs.Arch{specs.ArchX86}, ""},
	}
	for _, tt := range tests {
		if got := machineOf(&profile.Profile{Architectures: tt.arches}); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.arches, got, tt.want)
		}
	}
}

// TestOCIGaps: a config without a profile gets one, and a gap says so.
func TestOCIGaps(t *testing.T) {
	for src, want := range map[string]bool{
		`{"linux":{}}`:               true,
		`{"linux":{"seccomp":null}}`: true,
		`{"linux":{"seccomp":{}}}`:   true,
		`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_LOG"}}}`: false,
	} {
		_, gaps, err := OCI(wirelessPlan(), config(t, []byte(src)), SeccompOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := gaps[len(gaps)-1].Name == "default-profile"; got != want {
			t.Errorf("%s: %v", src, gaps)
		}
	}
}

// TestOCIRefuses: what cannot be hardened is named with its place.
func TestOCIRefuses(t *testing.T) {
	for src, want := range map[string]string{
		`{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/a.sock"}}}`: "1:70: the profile has a listener of its own (/run/a.sock): what it answers cannot be proved",
		`{"linux":{"seccomp":{"defaultAction":"ALLOW"}}}`:                                       `1:38: unknown action "ALLOW"; did you mean "SCMP_ACT_ALLOW"?`,
		`{"linux":null}`: "1:10: linux is no JSON object",
	} {
		files, _, err := OCI(wirelessPlan(), config(t, []byte(src)), SeccompOptions{})
		if err == nil || err.Error() != want || files != nil {
			t.Errorf("%s: %v, want %s", src, err, want)
		}
	}
}
