package gen

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// plainOutputs renders each target without a grant.
func plainOutputs(t *testing.T) (files map[string][]File, gaps map[string][]plan.Gap) {
	t.Helper()
	p := &plan.Plan{SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: 97}}
	filters := SeccompOptions{
		Base: profile.Docker(), Format: FormatOCI, Socketcall: harden.SocketcallDeny, Host: profile.Host{Arch: specs.ArchX86_64},
	}
	files, gaps = map[string][]File{}, map[string][]plan.Gap{}
	for target, render := range map[string]func() ([]File, []plan.Gap, error){
		"apparmor": func() ([]File, []plan.Gap, error) { return AppArmor(p, AppArmorOptions{}) },
		"oci": func() ([]File, []plan.Gap, error) {
			return OCI(p, config(t, []byte(`{"ociVersion": "1.2.0", "linux": {}}`)), filters)
		},
		"kubernetes": func() ([]File, []plan.Gap, error) {
			return Kubernetes(p, KubernetesOptions{SeccompOptions: SeccompOptions{Common: Common{Accept: []string{gapAdmission}}}})
		},
		"seccomp":  func() ([]File, []plan.Gap, error) { return Seccomp(p, filters) },
		"selinux":  func() ([]File, []plan.Gap, error) { return SELinux(p, SELinuxOptions{}) },
		"systemd":  func() ([]File, []plan.Gap, error) { return Systemd(p, SystemdOptions{Show: freeUnits}) },
		"tetragon": func() ([]File, []plan.Gap, error) { return Tetragon(p, TetragonOptions{Common: preempted()}) },
	} {
		var err error
		if files[target], gaps[target], err = render(); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
	}
	return files, gaps
}

// TestCoverageIsThatOfOutputs: each output has the fixed gaps of its target, and
// what it says of a route by those and others is what the target says.
func TestCoverageIsThatOfOutputs(t *testing.T) {
	_, gaps := plainOutputs(t)
	for _, target := range Targets() {
		if _, rendered := gaps[target]; !rendered {
			t.Errorf("%s: no output", target)
		}
		for _, r := range afalg.Routes() {
			want := coverage(gaps[target], r.Route)
			if r.Route == afalg.RouteInherited {
				want = NotSeen
			}
			if got := CoverageOf(target, r.Route); got != want {
				t.Errorf("%s says %q of %s, and the gaps of an output say %q", target, got, r.Route, want)
			}
		}
	}
	for target := range gaps {
		if CoverageOf(target, afalg.RouteSocket) == NotSeen {
			t.Errorf("%s is no target", target)
		}
	}
	if c := CoverageOf("no target", afalg.RouteSocket); c != NotSeen {
		t.Errorf("an unknown target: %q", c)
	}
}

// TestCoverageIsProved asks the programs of both targets that make filters.
func TestCoverageIsProved(t *testing.T) {
	files, _ := plainOutputs(t)
	var config specs.Spec
	if err := json.Unmarshal(files["oci"][0].Data, &config); err != nil {
		t.Fatal(err)
	}
	var alone specs.LinuxSeccomp
	if err := json.Unmarshal(files["seccomp"][0].Data, &alone); err != nil {
		t.Fatal(err)
	}
	for target, p := range map[string]*specs.LinuxSeccomp{"oci": config.Linux.Seccomp, "seccomp": &alone} {
		program, err := seccomp.Compile(p, seccomp.Options{Runtime: seccomp.Runc, Native: specs.ArchX86_64})
		if err != nil {
			t.Fatal(err)
		}
		verdicts, err := verify.Routes(cbpf.Filter{program.Insns}, afalg.Machine(string(specs.ArchX86_64)), afalg.Family, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			if closed := CoverageOf(target, v.Call.Route) == Closed; closed != (v.State == verify.Closed) {
				t.Errorf("%s says closed %t of %s, and the proof %s", target, closed, v.Call.Route, v.State)
			}
		}
	}
}

// TestEffects: what kills is stricter, and what loads the module is different.
func TestEffects(t *testing.T) {
	kinds := map[plan.Effect]plan.GapKind{plan.Kills: plan.Stricter, plan.Loads: plan.Different}
	_, outputs := plainOutputs(t)
	for target, gaps := range outputs {
		for _, g := range gaps {
			if g.Effect != "" && (g.Kind != kinds[g.Effect] || len(g.Routes) == 0) {
				t.Errorf("%s: %q on routes %v of the gap %s", target, g.Effect, g.Routes, g)
			}
		}
	}
}
