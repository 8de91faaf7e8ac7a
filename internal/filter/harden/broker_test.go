package harden

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

func brokerClosing(s Socketcall) closing {
	return closing{classes: classes{families: []uint32{unix.AF_ALG}}, errno: uint(unix.EAFNOSUPPORT), socketcall: s, broker: true}
}

// brokerWays are the treatments of socketcall that every base takes.
var brokerWays = []Socketcall{SocketcallDeny, SocketcallBroker}

// asRun compiles rules for x86-64 and its further ABIs as crun does.
func asRun(t *testing.T, p *profile.Profile) (cbpf.Filter, error) {
	t.Helper()
	p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	program, err := compileFor(p, hostOf(specs.ArchX86_64), seccomp.Crun)
	if err != nil {
		return nil, err
	}
	return cbpf.Filter{cbpf.Program(program.Insns)}, nil
}

func rule(action specs.LinuxSeccompAction, name string, args ...specs.LinuxSeccompArg) profile.Rule {
	r := profile.Rule{Names: []string{name}, Action: action, Args: args}
	if action == specs.ActErrno {
		errno := uint(unix.EAFNOSUPPORT)
		r.ErrnoRet = &errno
	}
	return r
}

func compare(index uint, op specs.LinuxSeccompOperator, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Op: op, Value: value}
}

// actionOf returns what a filter does with a call.
func actionOf(t *testing.T, f cbpf.Filter, abi afalg.ABI, nr uint32, args ...uint64) string {
	t.Helper()
	d := cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | nr}
	copy(d.Args[:], args)
	a, _, err := f.Run(d, cbpf.EndianOf(abi.BigEndian()))
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

// TestBroadPermissionSwallows is why permissions are divided: left whole, one
// takes the notification away, or the profile does not load.
func TestBroadPermissionSwallows(t *testing.T) {
	x64, _ := afalg.ABIOf("SCMP_ARCH_X86_64")
	notified := rule(specs.ActNotify, "bind", compare(2, specs.OpEqualTo, afalg.SockaddrSize))
	broad := rule(specs.ActAllow, "bind")
	f, err := asRun(t, &profile.Profile{DefaultAction: specs.ActErrno, Syscalls: []profile.Rule{broad, notified}})
	if err != nil {
		t.Fatal(err)
	}
	if got := actionOf(t, f, x64, x64.Bind, 3, 1, afalg.SockaddrSize); got != "ALLOW" {
		t.Errorf("beside a broad permission bind gives %s: dividing it is not needed any more", got)
	}
	_, err = asRun(t, &profile.Profile{DefaultAction: specs.ActErrno, Syscalls: []profile.Rule{notified, broad}})
	if err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("the other order: %v", err)
	}
	parts, err := trappedCalls[0].divide(broad)
	if err != nil {
		t.Fatal(err)
	}
	f, err = asRun(t, &profile.Profile{DefaultAction: specs.ActErrno, Syscalls: parts})
	if err != nil {
		t.Fatal(err)
	}
	for length, want := range map[uint64]string{16: "ALLOW", 28: "ALLOW", 87: "ALLOW", 88: "NOTIFY", 89: "ALLOW", 110: "ALLOW"} {
		if got := actionOf(t, f, x64, x64.Bind, 3, 1, length); got != want {
			t.Errorf("bind of %d bytes: %s, want %s", length, got, want)
		}
	}
}

// TestCompanions is why a rule for socketcall must swallow what libseccomp adds
// for it: the additions of two rules for socket contradict each other.
func TestCompanions(t *testing.T) {
	i386, _ := afalg.ABIOf("SCMP_ARCH_X86")
	rules := []profile.Rule{rule(specs.ActAllow, "socket", compare(0, specs.OpLessThan, 38)), rule(specs.ActNotify, "socket", equals(38))}
	_, err := asRun(t, &profile.Profile{DefaultAction: specs.ActErrno, Syscalls: rules})
	if err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("two rules for socket, none for socketcall: %v", err)
	}
	// In a profile that allows by default they load, and notify of more.
	f, err := asRun(t, &profile.Profile{DefaultAction: specs.ActAllow, Syscalls: []profile.Rule{
		rule(specs.ActErrno, "io_uring_setup"), rule(specs.ActNotify, "socket", lowEquals(38)),
		rule(specs.ActNotify, "accept", compare(1, specs.OpEqualTo, 0))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []uint64{1, 5} {
		if got := actionOf(t, f, i386, i386.Socketcall, call); got != "NOTIFY" {
			t.Errorf("socketcall(%d) gives %s: libseccomp adds nothing any more", call, got)
		}
	}
}

// TestBrokerRoutes: on every base, as every runtime compiles it at every level,
// AF_ALG is reached through the broker or not at all, and nothing else is
// notified.
func TestBrokerRoutes(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		for _, s := range brokerWays {
			c := brokerClosing(s)
			parsed := parse(t, b.src)
			hardened, _, err := rewrite(parsed, c)
			if err != nil {
				t.Fatalf("%s: %v", b.name, err)
			}
			for _, way := range everyWay() {
				filter, abis := compile(t, hardened, b.host, way)
				verdicts, err := verify.Routes(filter, abis, afalg.Family, verify.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range verdicts {
					if want := c.wantState(v.Call, isPermissive(parsed.DefaultAction)); v.State != want {
						t.Errorf("%s, socketcall %s, %s level %d: %s by %s on %s is %s, want %s (%v, %v)",
							b.name, s, way.Runtime, way.Level, v.Call.Route, v.Call.Name, v.Call.ABI.Name, v.State, want, v.Actions, v.Witness)
					}
				}
				if err := c.notifiesNothingElse(filter[0], abis); err != nil {
					t.Errorf("%s, socketcall %s, %s level %d: %v", b.name, s, way.Runtime, way.Level, err)
				}
			}
		}
	}
}

// wantState is what the broker's design says of a call.
func (c closing) wantState(call afalg.Call, allows bool) verify.State {
	native := call.Route != afalg.RouteSocketHighbits
	if call.Name == "socket" && (native || allows) || call.Name == "socketcall" && c.socketcall == SocketcallBroker {
		return verify.Listener
	}
	return verify.Closed
}

// TestBrokerChangesNothingElse is promise 6 with a broker: a proof over all
// inputs that base and result agree, except for what the broker answers, what is
// closed, and what the gaps name.
func TestBrokerChangesNothingElse(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		for _, s := range brokerWays {
			c := brokerClosing(s)
			parsed := parse(t, b.src)
			hardened, ch, err := rewrite(parsed, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range everyWay() {
				before, abis := compile(t, parsed, b.host, way)
				after, _ := compile(t, hardened, b.host, way)
				except := slices.Concat(c.brokered(abis), verify.Exceptions(abis, afalg.Family), c.declared(t, abis, ch, isPermissive(parsed.DefaultAction)))
				d, err := verify.Compare(before, after, cbpf.EndianOf(abis[0].BigEndian()), except...)
				if err != nil {
					t.Fatal(err)
				}
				if d.Equal != cbpf.Yes {
					t.Errorf("%s, socketcall %s, %s level %d: equal: %v: %v: base %v, result %v", b.name, s, way.Runtime, way.Level, d.Equal, d.Witness, d.A, d.B)
				}
			}
		}
	}
}

// declared lists the inputs that the gaps of a brokered result name.
func (c closing) declared(t *testing.T, abis []afalg.ABI, ch change, allows bool) []cbpf.Region {
	var regions []cbpf.Region
	for _, abi := range abis {
		at := func(nr uint32, field cbpf.Field, value cbpf.Constraint) {
			if nr == 0 {
				return
			}
			r := cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(abi.Bit|nr))
			regions = append(regions, r.With(field, value))
		}
		if ch.highbits {
			for _, nr := range []uint32{abi.Socket, abi.Socketpair} {
				at(nr, cbpf.ArgHigh(0), cbpf.Not(0))
				at(nr, cbpf.ArgLow(0), cbpf.Between(familyLimit, 0xffffffff))
			}
		}
		prctl, err := seccomp.Number("prctl", specs.Arch(abi.Arch))
		if err != nil {
			t.Fatal(err)
		}
		regions = append(regions, c.listenerRegions(t, abi)...)
		prctl &^= abi.Bit
		at(prctl, cbpf.ArgLow(0), cbpf.Exactly(unix.PR_SET_MM))
		if !allows {
			at(prctl, cbpf.ArgHigh(0), cbpf.Not(0))
			from := uint32(prctlLimit)
			for _, magic := range prctlMagic {
				at(prctl, cbpf.ArgLow(0), cbpf.Between(from, uint32(magic)-1))
				from = uint32(magic) + 1
			}
			at(prctl, cbpf.ArgLow(0), cbpf.Between(from, 0xffffffff))
		}
		switch {
		case c.socketcall != SocketcallBroker:
			at(abi.Socketcall, cbpf.ArgLow(0), cbpf.Constraint{})
		case !allows:
			at(abi.Socketcall, cbpf.ArgHigh(0), cbpf.Not(0))
			at(abi.Socketcall, cbpf.ArgLow(0), cbpf.Between(socketcallLimit, 0xffffffff))
		}
	}
	return regions
}

// TestSocketcallDenied: with a broker and socketcall denied, one errno comes out
// of it, whatever libseccomp adds for socket, bind, accept and setsockopt.
func TestSocketcallDenied(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		hardened, _, err := rewrite(parse(t, b.src), brokerClosing(SocketcallDeny))
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range everyWay() {
			filter, abis := compile(t, hardened, b.host, way)
			for _, abi := range abis {
				if abi.Socketcall == 0 {
					continue
				}
				within := cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(abi.Socketcall))
				out, err := filter.Actions(within, cbpf.EndianOf(abi.BigEndian()), 0)
				if err != nil {
					t.Fatal(err)
				}
				if len(out.Found) != 1 || out.Found[0].Action.String() != "ERRNO(97)" {
					t.Errorf("%s, %s level %d: socketcall on %s gives %v", b.name, way.Runtime, way.Level, abi.Name, out.Found)
				}
			}
		}
	}
}

// TestSocketcallBroker asks for each call of socketcall, with arguments that
// look like those of the calls that it stands for.
func TestSocketcallBroker(t *testing.T) {
	t.Parallel()
	for _, b := range bases(t) {
		hardened, _, err := rewrite(parse(t, b.src), brokerClosing(SocketcallBroker))
		if err != nil {
			t.Fatal(err)
		}
		filter, abis := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
		for _, abi := range abis {
			if abi.Socketcall == 0 {
				continue
			}
			for call := uint64(1); call < socketcallLimit; call++ {
				want := "ALLOW"
				if slices.Contains(socketcallBrokered, call) {
					want = "NOTIFY"
				}
				for _, args := range [][]uint64{{call}, {call, 0x1000, 88}, {call, 279}, {call, 0x1000, 16}} {
					if got := actionOf(t, filter, abi, abi.Socketcall, args...); got != want {
						t.Errorf("%s: socketcall(%v) on %s gives %s, want %s", b.name, args, abi.Name, got, want)
					}
				}
			}
		}
	}
}
