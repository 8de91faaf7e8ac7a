package harden

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// containerd is what containerd's default of 2026 says of the calls that classes
// are about: first by ranges (2.3.4, 2.4.0), then by a list of families (2.3.7,
// 2.4.2).
func containerd(arch specs.Arch, list bool) *profile.Profile {
	p := profile.AllowAll(arch)
	p.DefaultAction = specs.ActErrno
	allow := func(name string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, rule(specs.ActAllow, name, args...))
	}
	for _, name := range []string{"read", "write", "exit_group", "bind", "setsockopt", "socketpair", "socketcall", "prctl", "seccomp"} {
		allow(name)
	}
	if list {
		allow("socket", specs.LinuxSeccompArg{Op: specs.OpLessThan, Value: 38})
		for _, f := range []uint64{39, 41, 42, 43, 44, 45} {
			allow("socket", equals(f))
		}
	} else {
		allow("socket", specs.LinuxSeccompArg{Op: specs.OpLessThan, Value: unix.AF_ALG})
		allow("socket", equals(unix.AF_NFC))
		allow("socket", specs.LinuxSeccompArg{Op: specs.OpGreaterThan, Value: unix.AF_VSOCK})
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	flags := specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: namespaces}
	if arch == specs.ArchS390X {
		flags.Index = 1
	}
	allow("clone", flags)
	return p
}

// TestPresetsCloseWhatDefaultsLeave: the newest defaults let families through by
// which bugs like that of AF_ALG came; hardened with presets they do not.
func TestPresetsCloseWhatDefaultsLeave(t *testing.T) {
	t.Parallel()
	p := presetPlan(t, "page-cache", "unused")
	for _, arch := range []specs.Arch{specs.ArchX86_64, specs.ArchS390X, specs.ArchMIPS64} {
		for name, base := range map[string]*profile.Profile{
			"moby": profile.Docker(), "containerd, ranges": containerd(arch, false), "containerd, list": containerd(arch, true),
		} {
			host := hostOf(arch, profile.DefaultCaps()...)
			hardened, _, err := Harden(p, base, Options{Host: host})
			if err != nil {
				t.Errorf("%s on %s: %v", name, arch, err)
				continue
			}
			asked := verify.Classes{Families: []uint32{unix.AF_ALG, unix.AF_RXRPC, unix.AF_RDS, unix.AF_KEY, unix.AF_TIPC}, Sockets: p.ClosedSockets()}
			for _, way := range everyWay() {
				if n := openIn(t, base, host, way, asked); n < 20 {
					t.Errorf("%s on %s: only %d of the calls are open", name, arch, n)
				}
				if n := openIn(t, hardened, host, way, asked); n > 0 {
					t.Errorf("%s on %s, hardened, as %s compiles it at level %d: %d calls are open", name, arch, way.Runtime, way.Level, n)
				}
			}
		}
	}
}

// openIn counts the calls that a profile does not close.
func openIn(t *testing.T, p *profile.Profile, h profile.Host, way seccomp.Options, asked verify.Classes) (n int) {
	t.Helper()
	filter, abis := compile(t, p, h, way)
	all, err := asked.Questions(abis)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		for _, q := range a.Questions {
			v, err := q.Ask(filter, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if v.State != verify.Closed {
				n++
			}
		}
	}
	return n
}

// TestClassesTwice: a result is a base like any other, as where a hook hardens what
// a platform's default has already.
func TestClassesTwice(t *testing.T) {
	t.Parallel()
	p := manyClasses()
	for _, name := range []string{"docker/amd64", "docker/s390x", "podman/amd64", "none/amd64"} {
		b := named(t, name)
		for _, conditional := range []bool{false, true} {
			if conditional && (testing.Short() || name != "docker/amd64") {
				continue
			}
			once, _, err := Harden(p, parse(t, b.src), Options{Host: b.host, Conditional: conditional})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			twice, _, err := Harden(p, once, Options{Host: b.host, Conditional: conditional})
			if err != nil {
				t.Errorf("%s, again: %v", name, err)
				continue
			}
			first, abis := compile(t, once, b.host, seccomp.Options{Runtime: seccomp.Runc})
			second, _ := compile(t, twice, b.host, seccomp.Options{Runtime: seccomp.Runc})
			d, err := verify.Compare(first, second, cbpf.EndianOf(abis[0].BigEndian()))
			if err != nil || d.Equal != cbpf.Yes {
				t.Errorf("%s: %v %v: %v became %v (%v)", name, d.Equal, d.Witness, d.A, d.B, err)
			}
			if _, _, err := Harden(p, once, Options{Host: b.host, Broker: "/run/x.sock"}); err != nil {
				t.Errorf("%s, again with a broker: %v", name, err)
			}
		}
	}
}
