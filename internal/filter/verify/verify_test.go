package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

const (
	loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jeq      = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K

	offNr       = 0
	offArch     = 4
	offArg0Low  = 16
	offArg0High = 20
)

// test is a field of seccomp_data and the value that it must have.
type test struct{ offset, value uint32 }

// when returns action if every field has its value, and otherwise goes on.
func when(action uint32, tests ...test) cbpf.Program {
	var p cbpf.Program
	for i, t := range tests {
		skip := uint8(2*(len(tests)-i) - 1)
		p = append(p, unix.SockFilter{Code: loadWord, K: t.offset}, unix.SockFilter{Code: jeq, Jf: skip, K: t.value})
	}
	return append(p, ret(action)...)
}

func ret(action uint32) cbpf.Program {
	return cbpf.Program{{Code: unix.BPF_RET | unix.BPF_K, K: action}}
}

func join(parts ...cbpf.Program) cbpf.Program { return slices.Concat(parts...) }

const (
	allow  = unix.SECCOMP_RET_ALLOW
	denied = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	killed = unix.SECCOMP_RET_KILL_PROCESS
)

var x86 = abis("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")

func abis(names ...string) (list []afalg.ABI) {
	for _, n := range names {
		abi, _ := afalg.ABIOf(n)
		list = append(list, abi)
	}
	return list
}

// summary writes verdicts a line each.
func summary(verdicts []Verdict) string {
	var b strings.Builder
	for _, v := range verdicts {
		fmt.Fprintf(&b, "%s %s %s: %v %s", v.Call.ABI.Name, v.Call.Route, v.Call.Name, v.State, strings.Join(v.Actions, ","))
		if v.Reason != "" {
			fmt.Fprintf(&b, " (%s)", v.Reason)
		}
		if v.Witness != nil {
			fmt.Fprintf(&b, " [%v]", *v.Witness)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// amd64 keeps other architectures out.
func amd64(p cbpf.Program) cbpf.Program {
	return join(cbpf.Program{
		{Code: loadWord, K: offArch},
		{Code: jeq, Jt: 1, K: unix.AUDIT_ARCH_X86_64},
	}, ret(killed), p)
}

// notX32 kills every call with bit 30 set in the number.
func notX32(p cbpf.Program) cbpf.Program {
	return join(cbpf.Program{
		{Code: loadWord, K: offNr},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: 0x40000000},
	}, ret(killed), p)
}

func TestRoutes(t *testing.T) {
	ioUring := join(
		when(denied, test{offNr, 425}), when(denied, test{offNr, 426}), when(denied, test{offNr, 427}))
	family := func(nr uint32) cbpf.Program { return when(denied, test{offNr, nr}, test{offArg0Low, 38}) }
	tests := []struct {
		name    string
		filter  cbpf.Filter
		options Options
		want    string
	}{
		{
			name:   "a filter by hand, closed",
			filter: cbpf.Filter{amd64(notX32(join(family(41), family(53), ioUring, ret(allow))))},
			want: `
x86-64 socket socket: closed ERRNO(97)
x86-64 socket-highbits socket: closed ERRNO(97)
x86-64 socketpair socketpair: closed ERRNO(97)
x86-64 io_uring io_uring_setup: closed ERRNO(97)
x86-64 io_uring io_uring_enter: closed ERRNO(97)
x86-64 io_uring io_uring_register: closed ERRNO(97)
i386 compat-socket socket: closed KILL_PROCESS
i386 compat-socketcall socketcall: closed KILL_PROCESS
i386 socketpair socketpair: closed KILL_PROCESS
i386 socketpair socketcall: closed KILL_PROCESS
i386 io_uring io_uring_setup: closed KILL_PROCESS
i386 io_uring io_uring_enter: closed KILL_PROCESS
i386 io_uring io_uring_register: closed KILL_PROCESS
x32 x32-socket socket: closed KILL_PROCESS
x32 socketpair socketpair: closed KILL_PROCESS
x32 io_uring io_uring_setup: closed KILL_PROCESS
x32 io_uring io_uring_enter: closed KILL_PROCESS
x32 io_uring io_uring_register: closed KILL_PROCESS
`,
		},
		{
			name: "all 64 bits compared, the architecture not looked at",
			filter: cbpf.Filter{join(
				when(denied, test{offNr, 41}, test{offArg0High, 0}, test{offArg0Low, 38}),
				when(denied, test{offNr, 53}), ret(allow))},
			want: `
x86-64 socket socket: closed ERRNO(97)
x86-64 socket-highbits socket: open ALLOW [arch=0xc000003e nr=41 args[0]=0x100000026]
x86-64 socketpair socketpair: closed ERRNO(97)
x86-64 io_uring io_uring_setup: open ALLOW [arch=0xc000003e nr=425]
x86-64 io_uring io_uring_enter: open ALLOW [arch=0xc000003e nr=426]
x86-64 io_uring io_uring_register: open ALLOW [arch=0xc000003e nr=427]
i386 compat-socket socket: open ALLOW [arch=0x40000003 nr=359 args[0]=38]
i386 compat-socketcall socketcall: open ALLOW [arch=0x40000003 nr=102 args[0]=1]
i386 socketpair socketpair: open ALLOW [arch=0x40000003 nr=360 args[0]=38]
i386 socketpair socketcall: open ALLOW [arch=0x40000003 nr=102 args[0]=8]
i386 io_uring io_uring_setup: open ALLOW [arch=0x40000003 nr=425]
i386 io_uring io_uring_enter: open ALLOW [arch=0x40000003 nr=426]
i386 io_uring io_uring_register: open ALLOW [arch=0x40000003 nr=427]
x32 x32-socket socket: open ALLOW [arch=0xc000003e nr=1073741865 args[0]=38]
x32 socketpair socketpair: open ALLOW [arch=0xc000003e nr=1073741877 args[0]=38]
x32 io_uring io_uring_setup: open ALLOW [arch=0xc000003e nr=1073742249]
x32 io_uring io_uring_enter: open ALLOW [arch=0xc000003e nr=1073742250]
x32 io_uring io_uring_register: open ALLOW [arch=0xc000003e nr=1073742251]
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Routes(tt.filter, x86, afalg.Family, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want[1:], summary(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestStates asks about one call under each action and stacks of them.
func TestStates(t *testing.T) {
	const notify, trace, log = unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_LOG
	sometimes := func(a, b uint32) cbpf.Program { return join(when(a, test{24, 7}), ret(b)) }
	hash := cbpf.Program{ // A = args[0].lo * args[1].lo, thrice; allowed if it is a magic number
		{Code: loadWord, K: 24}, {Code: unix.BPF_MISC | unix.BPF_TAX}, {Code: loadWord, K: 32},
		{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_X}, {Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_X},
		{Code: jeq, Jt: 1, K: 0x7ab31701}}
	tests := []struct {
		name    string
		filter  cbpf.Filter
		options Options
		want    string
	}{
		{"no filter", nil, Options{}, "open ALLOW"},
		{"allow", cbpf.Filter{ret(allow)}, Options{}, "open ALLOW"},
		{"log lets it through", cbpf.Filter{ret(log)}, Options{}, "open LOG"},
		{"errno 0 is no socket", cbpf.Filter{ret(unix.SECCOMP_RET_ERRNO)}, Options{}, "closed ERRNO(0)"},
		{"trap", cbpf.Filter{ret(unix.SECCOMP_RET_TRAP)}, Options{}, "closed TRAP"},
		{"kill thread", cbpf.Filter{ret(unix.SECCOMP_RET_KILL_THREAD)}, Options{}, "closed KILL_THREAD"},
		{"unknown action", cbpf.Filter{ret(0x00010000)}, Options{}, "closed KILL_PROCESS"},
		{"trace", cbpf.Filter{ret(trace)}, Options{}, "open, undecided TRACE (a tracer decides)"},
		{"notify", cbpf.Filter{ret(notify)}, Options{}, "left to a listener NOTIFY"},
		{"notify, ours", cbpf.Filter{ret(notify)}, Options{NotifyCloses: true}, "closed NOTIFY"},
		{"notify or allow", cbpf.Filter{sometimes(notify, allow)}, Options{NotifyCloses: true}, "open NOTIFY,ALLOW"},
		{"notify or trace", cbpf.Filter{sometimes(notify, trace)}, Options{}, "open, undecided NOTIFY,TRACE (a tracer decides)"},
		{"notify or errno", cbpf.Filter{sometimes(notify, denied)}, Options{}, "left to a listener ERRNO(97),NOTIFY"},
		{"an older filter denies", cbpf.Filter{ret(denied), ret(allow)}, Options{}, "closed ERRNO(97)"},
		{"a newer filter denies", cbpf.Filter{ret(allow), ret(denied)}, Options{}, "closed ERRNO(97)"},
		{"each denies a half", cbpf.Filter{sometimes(denied, allow), sometimes(allow, killed)}, Options{}, "closed KILL_PROCESS,ERRNO(97)"},
		{"each allows a half", cbpf.Filter{sometimes(denied, allow), sometimes(killed, allow)}, Options{}, "open KILL_PROCESS,ALLOW"},
		{"equal kinds: the newest data", cbpf.Filter{ret(denied), ret(unix.SECCOMP_RET_ERRNO | 1)}, Options{}, "closed ERRNO(1)"},
		{"beyond the budget", cbpf.Filter{join(hash, ret(denied), ret(allow))}, Options{Budget: 5000},
			"open, undecided ERRNO(97) (no proof and no witness that the filter returns ALLOW)"},
	}
	call := x86[0].Calls(afalg.Family)[0]
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Ask(tt.filter, call, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			got := v.State.String() + " " + strings.Join(v.Actions, ",")
			if v.Reason != "" {
				got += " (" + v.Reason + ")"
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if (v.State == Open || v.State == Listener) && v.Witness == nil {
				t.Error("no witness")
			}
			if v.State == Closed && v.Witness != nil {
				t.Error("a witness for what is closed")
			}
		})
	}
}

// TestZeroIsNoDenial guards the meaning of values that nobody set.
func TestZeroIsNoDenial(t *testing.T) {
	if (Verdict{}).State == Closed || (cbpf.Outcome{}).Possible[cbpf.Allow] == cbpf.No || (cbpf.Difference{}).Equal == cbpf.Yes {
		t.Error("a zero value claims a proof")
	}
}

func TestRejected(t *testing.T) {
	_, err := Routes(cbpf.Filter{ret(allow), {{Code: loadWord, K: 2}}}, x86, afalg.Family, Options{})
	want := "verify socket on x86-64: filter 2 of 2: the kernel rejects this filter: instruction 0: load at offset 2, which is not a multiple of 4"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestBigEndian swaps the halves: on s390x the family is at offset 20.
func TestBigEndian(t *testing.T) {
	s390x := abis("SCMP_ARCH_S390X")[0]
	right := join(when(denied, test{offNr, 359}, test{offArg0High, 38}), ret(allow))
	wrong := join(when(denied, test{offNr, 359}, test{offArg0Low, 38}), ret(allow))
	for _, tt := range []struct {
		name   string
		filter cbpf.Program
		want   State
	}{{"right", right, Closed}, {"wrong", wrong, Open}} {
		v, err := Ask(cbpf.Filter{tt.filter}, s390x.Calls(afalg.Family)[0], Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v.State != tt.want {
			t.Errorf("%s: %v %v", tt.name, v.State, v.Actions)
		}
	}
}

func TestCompare(t *testing.T) {
	base := cbpf.Filter{join(when(denied, test{offNr, 101}), ret(allow))}
	hardened := cbpf.Filter{join(when(denied, test{offNr, 101}),
		when(denied, test{offNr, 41}, test{offArch, unix.AUDIT_ARCH_X86_64}, test{offArg0Low, 38}), ret(allow))}
	more := cbpf.Filter{join(when(denied, test{offNr, 101}),
		when(denied, test{offNr, 41}, test{offArg0Low, 38}), ret(allow))}
	except := Exceptions(abis("SCMP_ARCH_X86_64"), afalg.Family)
	for _, tt := range []struct {
		name   string
		result cbpf.Filter
		except []cbpf.Region
		want   string
	}{
		{"itself", base, nil, "yes"},
		{"hardened", hardened, except, "yes"},
		{"hardened, no exception", hardened, nil, "no: ALLOW, ERRNO(97) for arch=0xc000003e nr=41 args[0]=38"},
		{"closes another architecture", more, except, "no: ALLOW, ERRNO(97) for arch=0x00000000 nr=41 args[0]=38"},
		{"the same as a stack", append(base, hardened...), except, "yes"},
	} {
		d, err := Compare(base, tt.result, cbpf.Little, tt.except...)
		if err != nil {
			t.Fatal(err)
		}
		got := d.Equal.String()
		if d.Equal == cbpf.No {
			got += fmt.Sprintf(": %v, %v for %v", d.A, d.B, d.Witness)
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
