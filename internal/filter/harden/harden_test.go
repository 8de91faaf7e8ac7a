package harden

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// TestRoutesClosed is promise 3 beyond what generating asks: every level too.
func TestRoutesClosed(t *testing.T) {
	t.Parallel()
	c := closing{classes: classes{families: []uint32{unix.AF_RDS, unix.AF_RXRPC, unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	for _, b := range bases(t) {
		hardened, _, err := rewrite(parse(t, b.src), c)
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		for _, way := range everyWay() {
			filter, abis := compile(t, hardened, b.host, way)
			for _, family := range c.families {
				verdicts, err := verify.Routes(filter, abis, family, verify.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range verdicts {
					if v.State != verify.Closed {
						t.Errorf("%s, %s level %d: family %d by %s on %s is %s (%v)",
							b.name, way.Runtime, way.Level, family, v.Call.Name, v.Call.ABI.Name, v.State, v.Witness)
					}
				}
			}
		}
	}
}

// TestBasesAreOpen is the control of TestRoutesClosed: it finds what facts
// and measurements say is open.
func TestBasesAreOpen(t *testing.T) {
	t.Parallel()
	want := map[string][]afalg.Route{
		"docker/amd64": {afalg.RouteCompatSocketcall, afalg.RouteSocketpair},
		"podman/amd64": {afalg.RouteSocket, afalg.RouteSocketHighbits, afalg.RouteCompatSocket, afalg.RouteCompatSocketcall, afalg.RouteX32Socket, afalg.RouteSocketpair},
		"none/amd64": {afalg.RouteSocket, afalg.RouteSocketHighbits, afalg.RouteCompatSocket, afalg.RouteCompatSocketcall,
			afalg.RouteX32Socket, afalg.RouteIOUring, afalg.RouteSocketpair},
	}
	for _, b := range bases(t) {
		routes, ok := want[b.name]
		if !ok {
			continue
		}
		delete(want, b.name)
		for _, way := range everyWay() {
			filter, abis := compile(t, parse(t, b.src), b.host, way)
			verdicts, err := verify.Routes(filter, abis, afalg.Family, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			open := map[afalg.Route]bool{}
			for _, v := range verdicts {
				open[v.Call.Route] = open[v.Call.Route] || v.State == verify.Open
			}
			for _, r := range afalg.Routes() {
				if open[r.Route] != slices.Contains(routes, r.Route) {
					t.Errorf("%s, %s level %d: route %s open = %v", b.name, way.Runtime, way.Level, r.Route, open[r.Route])
				}
			}
		}
	}
	for name := range want {
		t.Errorf("no base %s", name)
	}
}

// TestNothingElseChanges is promise 6: a proof over all inputs that base and
// result agree, except in what hardening is about.
func TestNothingElseChanges(t *testing.T) {
	t.Parallel()
	c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	for _, b := range bases(t) {
		parsed := parse(t, b.src)
		hardened, ch, err := rewrite(parsed, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range everyWay() {
			before, abis := compile(t, parsed, b.host, way)
			after, _ := compile(t, hardened, b.host, way)
			e := cbpf.EndianOf(abis[0].BigEndian())
			d, err := verify.Compare(before, after, e, append(verify.Exceptions(abis, afalg.Family), declared(abis, ch)...)...)
			if err != nil {
				t.Fatal(err)
			}
			if d.Equal != cbpf.Yes {
				t.Errorf("%s, %s level %d: equal: %v: %v: base %v, result %v", b.name, way.Runtime, way.Level, d.Equal, d.Witness, d.A, d.B)
			}
		}
	}
}

// declared lists the inputs that the gaps of a result name.
func declared(abis []afalg.ABI, ch change) []cbpf.Region {
	var regions []cbpf.Region
	for _, abi := range abis {
		at := func(nr uint32, r cbpf.Region) {
			if nr == 0 {
				return
			}
			r[cbpf.Arch], r[cbpf.Nr] = cbpf.Exactly(abi.Audit), cbpf.Exactly(abi.Bit|nr)
			regions = append(regions, r)
		}
		at(abi.Socketcall, cbpf.Region{})
		if ch.highbits {
			for _, nr := range []uint32{abi.Socket, abi.Socketpair} {
				at(nr, cbpf.Everything.With(cbpf.ArgHigh(0), cbpf.Not(0)))
				at(nr, cbpf.Everything.With(cbpf.ArgLow(0), cbpf.Between(familyLimit, 0xffffffff)))
			}
		}
	}
	return regions
}

// TestFamiliesOneByOne walks what TestNothingElseChanges proves, by running
// the programs: families 0 to 64, every call number to 600, both halves.
func TestFamiliesOneByOne(t *testing.T) {
	t.Parallel()
	c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	refused := cbpf.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT))
	for _, b := range bases(t) {
		parsed := parse(t, b.src)
		hardened, _, err := rewrite(parsed, c)
		if err != nil {
			t.Fatal(err)
		}
		way := seccomp.Options{Runtime: seccomp.Runc}
		before, abis := compile(t, parsed, b.host, way)
		after, _ := compile(t, hardened, b.host, way)
		for _, abi := range abis {
			e := cbpf.EndianOf(abi.BigEndian())
			for nr := range uint32(600) {
				for arg := range uint64(65) {
					for _, high := range []uint64{0, 1 << 32} {
						d := cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | nr, Args: [6]uint64{arg | high, 1}}
						was, _, err := before.Run(d, e)
						if err != nil {
							t.Fatal(err)
						}
						is, _, err := after.Run(d, e)
						if err != nil {
							t.Fatal(err)
						}
						if was == is || ours(abi, nr, arg) {
							continue
						}
						family := nr == abi.Socket || nr == abi.Socketpair
						if family && is == refused && (high != 0 || arg >= familyLimit) {
							continue // no kernel has it, or the declared gap
						}
						t.Fatalf("%s: %s: call %d(%#x): %v became %v", b.name, abi.Name, nr, arg|high, was, is)
					}
				}
			}
		}
	}
}

// ours reports whether a call is one that hardening closes.
func ours(abi afalg.ABI, nr uint32, arg uint64) bool {
	if nr == 0 {
		return false
	}
	return (nr == abi.Socket || nr == abi.Socketpair) && arg == unix.AF_ALG ||
		nr == abi.Socketcall || nr >= abi.IOUring && nr <= abi.IOUring+2
}

// TestHardenedTwice: a result is a base like any other, and does not change.
func TestHardenedTwice(t *testing.T) {
	t.Parallel()
	c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	for _, b := range bases(t) {
		once, _, err := rewrite(parse(t, b.src), c)
		if err != nil {
			t.Fatal(err)
		}
		twice, _, err := rewrite(once, c)
		if err != nil {
			t.Fatal(err)
		}
		way := seccomp.Options{Runtime: seccomp.Runc}
		first, abis := compile(t, once, b.host, way)
		second, _ := compile(t, twice, b.host, way)
		d, err := verify.Compare(first, second, cbpf.EndianOf(abis[0].BigEndian()))
		if err != nil || d.Equal != cbpf.Yes {
			t.Errorf("%s: %v %v: %v became %v (%v)", b.name, d.Equal, d.Witness, d.A, d.B, err)
		}
	}
}

// TestErrnos: a denial looks like a kernel without AF_ALG.
func TestErrnos(t *testing.T) {
	t.Parallel()
	denied := func(e unix.Errno) string { return fmt.Sprintf("ERRNO(%d)", e) }
	tests := []struct {
		base  string
		route afalg.Route
		want  string
	}{
		{"docker/amd64", afalg.RouteSocket, denied(unix.EAFNOSUPPORT)},
		{"docker/amd64", afalg.RouteSocketHighbits, denied(unix.EPERM)}, // the base's own
		{"docker/amd64", afalg.RouteCompatSocket, denied(unix.EAFNOSUPPORT)},
		{"docker/amd64", afalg.RouteCompatSocketcall, denied(unix.EAFNOSUPPORT)},
		{"docker/amd64", afalg.RouteX32Socket, denied(unix.EAFNOSUPPORT)},
		{"docker/amd64", afalg.RouteIOUring, denied(unix.EPERM)},
		{"podman/amd64", afalg.RouteSocket, denied(unix.EAFNOSUPPORT)},
		{"podman/amd64", afalg.RouteSocketHighbits, denied(unix.EAFNOSUPPORT)},
		{"podman/amd64", afalg.RouteIOUring, denied(unix.ENOSYS)},
		{"none/amd64", afalg.RouteSocket, denied(unix.EAFNOSUPPORT)},
		{"none/amd64", afalg.RouteSocketHighbits, denied(unix.EAFNOSUPPORT)},
		{"none/amd64", afalg.RouteCompatSocketcall, denied(unix.EAFNOSUPPORT)},
		{"none/amd64", afalg.RouteIOUring, denied(unix.ENOSYS)},
	}
	c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny}
	for _, b := range bases(t) {
		hardened, _, err := rewrite(parse(t, b.src), c)
		if err != nil {
			t.Fatal(err)
		}
		filter, abis := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
		verdicts, err := verify.Routes(filter, abis, afalg.Family, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range tests {
			if test.base != b.name {
				continue
			}
			for _, v := range verdicts {
				if v.Call.Route == test.route && !slices.Equal(v.Actions, []string{test.want}) {
					t.Errorf("%s: %s (%s on %s): %v, want %s", b.name, test.route, v.Call.Name, v.Call.ABI.Name, v.Actions, test.want)
				}
			}
		}
	}
}

// TestNoEncodingIsMisread: no rule of a default-deny result compares with a
// mask, and none equals the default action.
func TestNoEncodingIsMisread(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.EAFNOSUPPORT, unix.EPERM, unix.ENOSYS} {
		c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(errno), socketcall: SocketcallDeny}
		for _, b := range bases(t) {
			parsed := parse(t, b.src)
			hardened, _, err := rewrite(parsed, c)
			if err != nil {
				t.Fatal(err)
			}
			touched, _ := split(hardened.Syscalls)
			h := hardener{base: parsed}
			for name, rules := range touched {
				for _, r := range rules {
					if r.Action == specs.ActErrno && h.isDefault(*r.ErrnoRet) || r.Action == hardened.DefaultAction && r.Action != specs.ActErrno {
						t.Errorf("%s: a rule for %s equals the default action: %+v", b.name, name, r)
					}
					for _, a := range r.Args {
						if a.Op == specs.OpMaskedEqual && !isPermissive(parsed.DefaultAction) {
							t.Errorf("%s: a masked comparison for %s: %+v", b.name, name, r)
						}
					}
				}
			}
		}
	}
}

// TestMiscompiledShape: the obvious hardening of a default-allow profile,
// which libseccomp compiles to a filter that denies nothing on x86-64. The
// prover must see it, whatever the profile says.
func TestMiscompiledShape(t *testing.T) {
	errno := uint(unix.EAFNOSUPPORT)
	p := &profile.Profile{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []profile.Rule{
			{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &errno, Args: []specs.LinuxSeccompArg{equals(unix.AF_ALG)}},
			{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &errno},
		},
	}
	c := closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: errno, socketcall: SocketcallDeny}
	err := prove(p, hostOf(specs.ArchX86_64), c)
	open, ok := err.(*openError)
	if !ok || open.Verdict.Call.Route != afalg.RouteSocket || open.Verdict.Witness == nil {
		t.Fatalf("got %v, want an openError for the route socket with a witness", err)
	}
	fixed, _, err := rewrite(p, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := prove(fixed, hostOf(specs.ArchX86_64), c); err != nil {
		t.Errorf("hardened: %v", err)
	}
}
