package nri

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/runtime-tools/generate"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/oci"
)

// adjusted is what a runtime makes of a profile that a plugin sends: it passes NRI's
// own wire, and the function by which runtimes change the spec.
func adjusted(t testing.TB, n *api.LinuxSeccomp) *specs.LinuxSeccomp {
	t.Helper()
	wire, err := proto.Marshal(&api.ContainerAdjustment{Linux: &api.LinuxContainerAdjustment{SeccompPolicy: n}})
	if err != nil {
		t.Fatal(err)
	}
	var got api.ContainerAdjustment
	if err := proto.Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	g := &generate.Generator{Config: &specs.Spec{Linux: &specs.Linux{}}}
	if err := g.AdjustSeccompPolicy(got.GetLinux().GetSeccompPolicy()); err != nil {
		t.Fatal(err)
	}
	return g.Config.Linux.Seccomp
}

// What the runtime gets is what was proved, and it reads it as it reads a config.json.
func TestCarried(t *testing.T) {
	p := testPlan(t, "harden")
	o := testOptions(t, p)
	for name, base := range map[string]*specs.LinuxSeccomp{"docker": dockerDefault(t), "small": closedAnyway(), "none": nil} {
		spec, err := oci.SpecOf(base, profile.Config{})
		if err != nil {
			t.Fatal(err)
		}
		q := question{seccomp: base}
		q.container.Platform, q.container.Vouched.Namespace, q.container.Vouched.Pod = "containerd", "crypto", "known-pod"
		out, n, err := q.answer(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out.Spec == spec || n.GetListenerPath() != o.Agent || n.GetListenerMetadata() == "" {
			t.Errorf("%s: the agent is not its listener", name)
		}
		want, err := out.Spec.Seccomp.Resolve(profile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(text(want)), string(text(adjusted(t, n)))); d != "" {
			t.Errorf("%s: proved, and got by the runtime:\n%s", name, d)
		}
	}
}

// The errno of a default action that is left out is the one that every runtime takes.
func TestPlainErrno(t *testing.T) {
	said, left := dockerDefault(t), dockerDefault(t)
	eperm := uint(1)
	said.DefaultErrnoRet = &eperm
	for _, runtime := range seccomp.Runtimes() {
		o := seccomp.Options{Runtime: runtime, Native: specs.ArchX86_64}
		a, err := seccomp.Compile(said, o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := seccomp.Compile(left, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Insns, b.Insns) {
			t.Errorf("%s makes two programs of it", runtime)
		}
	}
	if lossy := plainErrno(said); lossy || said.DefaultErrnoRet != nil {
		t.Errorf("lossy %v, %v", lossy, said.DefaultErrnoRet)
	}
	for _, s := range []specs.LinuxSeccomp{
		{DefaultAction: specs.ActErrno, DefaultErrnoRet: new(uint(38))}, {DefaultAction: specs.ActErrno, DefaultErrnoRet: new(uint(0))},
		{DefaultAction: specs.ActAllow, DefaultErrnoRet: &eperm}, {DefaultAction: specs.ActTrace, DefaultErrnoRet: &eperm},
	} {
		if !plainErrno(&s) {
			t.Errorf("%s with %d is carried", s.DefaultAction, *s.DefaultErrnoRet)
		}
		p, err := profile.OfSpec(&s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := carried(p); !errors.Is(err, errLossy) {
			t.Error(err)
		}
	}
}

// FuzzProfile: what a plugin is told is read as the one reader of a config.json reads
// the same profile, and what is sent back arrives as it was sent, or is not sent.
func FuzzProfile(f *testing.F) {
	errno := uint(38)
	for _, s := range []*specs.LinuxSeccomp{
		closedAnyway(), dockerDefault(f), {DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno},
		{DefaultAction: specs.ActAllow, ListenerPath: "/run/a", ListenerMetadata: "m", Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}},
		{DefaultAction: "", Syscalls: []specs.LinuxSyscall{{Names: []string{""}, Action: "x"}}},
	} {
		wire, err := proto.Marshal(api.FromOCILinuxSeccomp(s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var n api.LinuxSeccomp
		if proto.Unmarshal(wire, &n) != nil {
			return
		}
		said := specOf(&n)
		typed, typedErr := oci.SpecOf(said, profile.Config{})
		whole, err := json.Marshal(specs.Spec{Version: "1.0.2", Linux: &specs.Linux{Seccomp: said}})
		if err != nil {
			t.Fatal(err)
		}
		read, readErr := oci.ReadSpec(whole)
		if (typedErr == nil) != (readErr == nil) {
			t.Fatalf("as values: %v; as a text: %v\n%s", typedErr, readErr, whole)
		}
		if typedErr != nil {
			return
		}
		if (typed.Seccomp == nil) != (read.Seccomp == nil) {
			t.Fatalf("one reader finds no profile in\n%s", whole)
		}
		if typed.Seccomp == nil {
			return
		}
		a, err1 := typed.Seccomp.Resolve(profile.Host{})
		b, err2 := read.Seccomp.Resolve(profile.Host{})
		if err1 != nil || err2 != nil || !bytes.Equal(text(a), text(b)) {
			t.Fatalf("%v %v\n%s\n%s", err1, err2, text(a), text(b))
		}
		sent, err := carried(typed.Seccomp)
		if err != nil {
			return
		}
		if got := adjusted(t, sent); !bytes.Equal(text(a), text(got)) {
			t.Fatalf("sent\n%s\nand arrived\n%s", text(a), text(got))
		}
	})
}
