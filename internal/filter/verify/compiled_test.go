package verify

import (
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

func compile(tb testing.TB, p *specs.LinuxSeccomp, o seccomp.Options) cbpf.Filter {
	tb.Helper()
	o.Native = specs.ArchX86_64
	compiled, err := seccomp.Compile(p, o)
	if err != nil {
		tb.Fatal(err)
	}
	return cbpf.Filter{compiled.Insns}
}

// docker is the pinned default profile with its three x86 ABIs, on any machine.
func docker(tb testing.TB) *specs.LinuxSeccomp {
	tb.Helper()
	p, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		tb.Fatal(err)
	}
	p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	return p
}

// TestMiscompiled takes the profile that libseccomp 2.5.4 to 2.6.1 compile to
// a filter that denies nothing on x86-64 and x32: the profile looks right.
func TestMiscompiled(t *testing.T) {
	errno := uint(97)
	deny := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno, Args: args}
	}
	profile := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			deny("socket", specs.LinuxSeccompArg{Index: 0, Value: 0xffffffff, ValueTwo: 38, Op: specs.OpMaskedEqual}),
			deny("socketcall"),
		},
	}
	for _, tt := range []struct {
		level int
		want  State
	}{{1, Open}, {2, Closed}} {
		filter := compile(t, profile, seccomp.Options{Level: tt.level})
		v, err := Ask(filter, x86[0].Calls(afalg.Family)[0], Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.State != tt.want {
			t.Errorf("level %d: %v, want %v\n%s", tt.level, v.State, tt.want, filter[0].Listing(cbpf.Little))
		}
	}
}

// TestDocker compares the pinned profile with facts measured with runc.
func TestDocker(t *testing.T) {
	want := map[afalg.Route]State{
		afalg.RouteSocket:           Closed,
		afalg.RouteSocketHighbits:   Closed,
		afalg.RouteCompatSocket:     Closed,
		afalg.RouteCompatSocketcall: Open,
		afalg.RouteX32Socket:        Closed,
		afalg.RouteIOUring:          Closed,
		afalg.RouteSocketpair:       Open,
	}
	for _, runtime := range seccomp.Runtimes() {
		verdicts, err := Routes(compile(t, docker(t), seccomp.Options{Runtime: runtime}), x86, afalg.Family, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			if v.State != want[v.Call.Route] {
				t.Errorf("%s: %s %s %s: %v, want %v", runtime, v.Call.ABI.Name, v.Call.Route, v.Call.Name, v.State, want[v.Call.Route])
			}
		}
	}
}

// TestCompareCompiled proves that the runtimes' ways of compiling one profile
// differ in nothing but the ENOSYS stub, and finds a rule that is missing.
func TestCompareCompiled(t *testing.T) {
	profile := docker(t)
	list := compile(t, profile, seccomp.Options{Runtime: seccomp.Runc, Level: 1})
	tree := compile(t, profile, seccomp.Options{Runtime: seccomp.Runc, Level: 2})
	if d, err := Compare(list, tree, cbpf.Little); err != nil || d.Equal != cbpf.Yes {
		t.Errorf("list and tree: %+v, %v", d, err)
	}
	profile.Syscalls[0].Names = profile.Syscalls[0].Names[1:]
	less := compile(t, profile, seccomp.Options{Runtime: seccomp.Runc})
	if d, err := Compare(list, less, cbpf.Little); err != nil || d.Equal != cbpf.No {
		t.Errorf("one name less: %+v, %v", d, err)
	}
}

// BenchmarkDockerRoutes has a bar of 20 ms without the compilation.
func BenchmarkDockerRoutes(b *testing.B) {
	filter := compile(b, docker(b), seccomp.Options{Runtime: seccomp.Runc})
	b.ReportMetric(float64(len(filter[0])), "instructions")
	for b.Loop() {
		if _, err := Routes(filter, x86, afalg.Family, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDockerVerify has a bar of 100 ms, compilation included.
func BenchmarkDockerVerify(b *testing.B) {
	profile := docker(b)
	for b.Loop() {
		filter := compile(b, profile, seccomp.Options{Runtime: seccomp.Runc})
		if _, err := Routes(filter, x86, afalg.Family, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDockerCompare(b *testing.B) {
	list := compile(b, docker(b), seccomp.Options{Runtime: seccomp.Runc, Level: 1})
	tree := compile(b, docker(b), seccomp.Options{Runtime: seccomp.Runc, Level: 2})
	for b.Loop() {
		if d, err := Compare(list, tree, cbpf.Little); err != nil || d.Equal != cbpf.Yes {
			b.Fatal(d, err)
		}
	}
}
