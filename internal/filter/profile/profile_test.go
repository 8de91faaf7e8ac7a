package profile

import (
	"encoding/json"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// TestResolveAsDocker compares with Docker's own code, which resolves for the
// machine that it runs on.
func TestResolveAsDocker(t *testing.T) {
	native, err := ArchByName(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for name, caps := range map[string][]string{
		"none": nil, "default": DefaultCaps(), "one": {"CAP_SYS_ADMIN"}, "two": {"CAP_SYS_PTRACE", "CAP_BPF"},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := mobyseccomp.GetDefaultProfile(&specs.Spec{
				Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Docker().Resolve(Host{Arch: native, Caps: caps})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
				t.Errorf("-docker +resolved:\n%s", diff)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConditions(t *testing.T) {
	on := Host{Arch: specs.ArchX86_64, Caps: []string{"CAP_A", "CAP_B"}, Kernel: "6.1"}
	tests := []struct {
		name string
		rule Rule
		want bool
	}{
		{"none", Rule{}, true},
		{"empty", Rule{Includes: &Condition{}, Excludes: &Condition{}}, true},
		{"machine", Rule{Includes: &Condition{Arches: []string{"arm64", "amd64"}}}, true},
		{"another machine", Rule{Includes: &Condition{Arches: []string{"arm64"}}}, false},
		{"excluded machine", Rule{Excludes: &Condition{Arches: []string{"amd64"}}}, false},
		{"all capabilities", Rule{Includes: &Condition{Caps: []string{"CAP_A", "CAP_B"}}}, true},
		{"one is missing", Rule{Includes: &Condition{Caps: []string{"CAP_A", "CAP_C"}}}, false},
		{"one is excluded", Rule{Excludes: &Condition{Caps: []string{"CAP_C", "CAP_B"}}}, false},
		{"kernel", Rule{Includes: &Condition{MinKernel: "6.1"}}, true},
		{"newer kernel", Rule{Includes: &Condition{MinKernel: "6.10"}}, false},
		{"excluded kernel", Rule{Excludes: &Condition{MinKernel: "4.8"}}, false},
		{"kernel still to come", Rule{Excludes: &Condition{MinKernel: "7.0"}}, true},
	}
	for _, test := range tests {
		got, err := test.rule.Applies(on)
		if err != nil || got != test.want {
			t.Errorf("%s: %v, %v; want %v", test.name, got, err, test.want)
		}
	}
}

func TestArchByName(t *testing.T) {
	for name, want := range map[string]specs.Arch{
		"amd64": specs.ArchX86_64, "SCMP_ARCH_X86_64": specs.ArchX86_64, "arm64": specs.ArchAARCH64,
		"loong64": specs.ArchLOONGARCH64, "loongarch64": specs.ArchLOONGARCH64, "mips64le": specs.ArchMIPSEL64,
		"386": specs.ArchX86, "pdp11": "", "": "",
	} {
		if got, err := ArchByName(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestNatives(t *testing.T) {
	want := []specs.Arch{
		specs.ArchX86_64, specs.ArchAARCH64, specs.ArchMIPS64, specs.ArchMIPSEL64, specs.ArchS390X,
		specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchPPC64LE,
	}
	if got := Docker().Natives(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzParse: what is accepted prints and parses to the same profile.
func FuzzParse(f *testing.F) {
	docker, err := jsontext.Encode(Docker())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(docker)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ERRNO","errno":"EPERM"}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"x","args":[{"index":9,"value":-1}]}]}`))
	f.Add([]byte("kind: SeccompProfile\nmetadata: {name: a}\nspec:\n  defaultAction: SCMP_ACT_ALLOW\n  syscalls: [{names: [a], action: SCMP_ACT_LOG}]\n---\n"))
	f.Add([]byte(`{"kind":"List","items":[{"kind":"SeccompProfile","spec":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":""}]}}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["a"],"action":"x","args":[{"value":AF_ALG}]}]}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Parse(src)
		if err != nil {
			return
		}
		text, err := jsontext.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(asJSON(t, p), asJSON(t, again)); diff != "" {
			t.Error(diff)
		}
	})
}
