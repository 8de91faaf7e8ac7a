package verify

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

func TestQuery(t *testing.T) {
	tests := []struct{ query, want string }{
		{"socket", "x86-64 socket(41)\ni386 socket(359)\nx32 socket(1073741865)\n"},
		{"socket()", "x86-64 socket(41)\ni386 socket(359)\nx32 socket(1073741865)\n"},
		{"socket(any, any)", "x86-64 socket(41)\ni386 socket(359)\nx32 socket(1073741865)\n"},
		{"socket(family=any, abi=any)", "x86-64 socket(41)\ni386 socket(359)\nx32 socket(1073741865)\n"},
		{" socket ( family = AF_RXRPC , abi = x86-64 ) ", "x86-64 socket(41) args[0].lo = 0x21\n"},
		{"socket(domain=33,abi=x86-64)", "x86-64 socket(41) args[0].lo = 0x21\n"},
		{"socket(type=-1,abi=x86-64)", "x86-64 socket(41) args[1].lo = 0xffffffff\n"},
		{"socket(arg0=AF_ALG,abi=x86-64)", "x86-64 socket(41) args[0].hi = 0x0, args[0].lo = 0x26\n"},
		{"socket(arg0=-1,abi=x86-64)", "x86-64 socket(41) args[0].hi = 0xffffffff, args[0].lo = 0xffffffff\n"},
		{"socket(arg0=0x100000026,abi=x86-64)", "x86-64 socket(41) args[0].hi = 0x1, args[0].lo = 0x26\n"},
		{"socket(family=AF_ALG,family.high!=0,abi=x86-64)", "x86-64 socket(41) args[0].hi ≠ 0x0, args[0].lo = 0x26\n"},
		{"socket(family!=AF_ALG,abi=x86-64)", "x86-64 socket(41) args[0].lo ≠ 0x26\n"},
		{"socket(arg2.low=0xffffffff,abi=x86-64)", "x86-64 socket(41) args[2].lo = 0xffffffff\n"},
		{"ptrace(request=16,abi=x86-64)", "x86-64 ptrace(101) args[0].hi = 0x0, args[0].lo = 0x10\n"},
		{"socket(family=33..AF_MCTP,abi=x86-64)", "x86-64 socket(41) args[0].lo in 0x21–0x2d\n"},
		{"socket(type=SOCK_RAW,family=AF_PACKET,abi=x86-64)", "x86-64 socket(41) args[0].lo = 0x11, args[1].lo & 0xfff7f7ff = 0x3\n"},
		{"socket(type&0x800,abi=x86-64)", "x86-64 socket(41) args[1].lo & 0x800 = 0x800\n"},
		{"socket(type&0xf=3,abi=x86-64)", "x86-64 socket(41) args[1].lo & 0xf = 0x3\n"},
		{"socket(protocol=NETLINK_XFRM,family=AF_NETLINK,abi=x86-64)", "x86-64 socket(41) args[0].lo = 0x10, args[2].lo = 0x6\n"},
		{"socket(family=16, protocol!=NETLINK_ROUTE,abi=x86-64)", "x86-64 socket(41) args[0].lo = 0x10, args[2].lo ≠ 0x0\n"},
		{"socket(family=AF_INET6,protocol=IPPROTO_ICMPV6..IPPROTO_L2TP,abi=x86-64)", "x86-64 socket(41) args[0].lo = 0xa, args[2].lo in 0x3a–0x73\n"},
		{"setsockopt(level=SOL_TCP,option=TCP_ULP,abi=x86-64)", "x86-64 setsockopt(54) args[1].lo = 0x6, args[2].lo = 0x1f\n"},
		{"setsockopt(optname=TCP_ULP,level=6,abi=i386)", "i386 setsockopt(366) args[1].lo = 0x6, args[2].lo = 0x1f\n"},
		{"clone(flags&CLONE_NEWUSER,abi=x86-64)", "x86-64 clone(56) args[0].lo & 0x10000000 = 0x10000000\n"},
		{"clone(flags&CLONE_NEWUSER=0,abi=x86-64)", "x86-64 clone(56) args[0].lo & 0x10000000 = 0x0\n"},
		{"unshare(flags&CLONE_NEWUSER,abi=x86-64)", "x86-64 unshare(272) args[0].lo & 0x10000000 = 0x10000000\n"},
		{"unshare(flags=CLONE_NEWUSER,abi=x86-64)", "x86-64 unshare(272) args[0].hi = 0x0, args[0].lo = 0x10000000\n"},
		{"setns(nstype=CLONE_NEWUSER,abi=x86-64)", "x86-64 setns(308) args[1].lo = 0x10000000\n"},
		{"bind(abi=i386)", "i386 bind(361)\n"}, // not the number that socketcall multiplexes
		{"socketcall(call=1)", "i386 socketcall(102) args[0].lo = 0x1\n"},
		{"41(abi=x86-64)", "x86-64 socket(41)\n"},
		{"0x40000029(abi=x32)", "x32 socket(1073741865)\n"},
		{"9999(abi=x86-64)", "x86-64 (9999)\n"},
		{"socket(abi=s390x)", ""},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			q, err := ParseQuery(test.query)
			if err != nil {
				t.Fatal(err)
			}
			questions, err := q.Questions(x86)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, question := range questions {
				c := question.Call
				r := question.Region.With(cbpf.Nr, cbpf.Constraint{}).With(cbpf.Arch, cbpf.Constraint{})
				line := fmt.Sprintf("%s %s(%d) %v", c.ABI.Name, c.Name, c.Nr, r)
				fmt.Fprintln(&got, strings.TrimSuffix(line, " every input"))
				if question.Region[cbpf.Nr] != cbpf.Exactly(c.Nr) || question.Region[cbpf.Arch] != cbpf.Exactly(c.ABI.Audit) {
					t.Errorf("%s: the number or the ABI is not fixed", c.ABI.Name)
				}
			}
			if diff := cmp.Diff(test.want, got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The same words are other numbers, or in another register, on other machines.
func TestQueryOnOtherMachines(t *testing.T) {
	tests := []struct{ query, abi, want string }{
		{"socket(type=SOCK_STREAM)", "aarch64", "args[1].lo & 0xfff7f7ff = 0x1"},
		{"socket(type=SOCK_STREAM)", "mips64", "args[1].lo & 0xfff7ff7f = 0x2"},
		{"socket(type=SOCK_RAW)", "mipsel", "args[1].lo & 0xfff7ff7f = 0x3"},
		{"setsockopt(level=SOL_SOCKET,option=SO_ATTACH_BPF)", "mips", "args[1].lo = 0xffff, args[2].lo = 0x32"},
		{"setsockopt(level=1)", "mips", "args[1].lo = 0x1"},
		{"setsockopt(level=SOL_SOCKET,option=SO_ATTACH_BPF)", "arm", "args[1].lo = 0x1, args[2].lo = 0x32"},
		{"clone(flags&CLONE_NEWUSER)", "aarch64", "args[0].lo & 0x10000000 = 0x10000000"},
		{"clone(flags&CLONE_NEWUSER)", "s390x", "args[1].lo & 0x10000000 = 0x10000000"},
		{"clone(flags&CLONE_NEWUSER)", "s390", "args[1].lo & 0x10000000 = 0x10000000"},
		{"clone(arg0.low&CLONE_NEWUSER)", "s390x", ""},
		{"unshare(flags&CLONE_NEWUSER)", "s390x", "args[0].lo & 0x10000000 = 0x10000000"},
	}
	for _, test := range tests {
		q, err := ParseQuery(test.query)
		if test.want == "" {
			if err == nil {
				t.Errorf("%s: a register has no flags", test.query)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		abi, _ := afalg.ABINamed(test.abi)
		questions, err := q.Questions([]afalg.ABI{abi})
		if err != nil || len(questions) != 1 {
			t.Fatalf("%s on %s: %d questions, %v", test.query, test.abi, len(questions), err)
		}
		r := questions[0].Region.With(cbpf.Nr, cbpf.Constraint{}).With(cbpf.Arch, cbpf.Constraint{})
		if r.String() != test.want {
			t.Errorf("%s on %s: %v, want %s", test.query, test.abi, r, test.want)
		}
	}
}

func TestQueryErrors(t *testing.T) {
	tests := []struct{ query, want string }{
		{"", "expected a system call: its name or number, as in \"socket(family=AF_ALG)\"\n  \n  ^"},
		{"(family=1)", "expected a system call: its name or number, as in \"socket(family=AF_ALG)\"\n  (family=1)\n  ^"},
		{"4x1", "\"4x1\" is no system call number\n  4x1\n  ^"},
		{"4294967296", "\"4294967296\" is no system call number\n  4294967296\n  ^"},
		{"socket(famly=1)", "no parameter \"famly\": socket has family, type, protocol; registers are arg0 to arg5\n  socket(famly=1)\n         ^"},
		{"mmap(addr=1)", "\"addr\": the parameters of this call are not known by name; write arg0 to arg5\n  mmap(addr=1)\n       ^"},
		{"41(family=1)", "\"family\": the parameters of this call are not known by name; write arg0 to arg5\n  41(family=1)\n     ^"},
		{"socket(arg6=1)", "no parameter \"arg6\": socket has family, type, protocol; registers are arg0 to arg5\n  socket(arg6=1)\n         ^"},
		{"socket(family)", "expected \"=\", \"!=\" or \"&\" after family\n  socket(family)\n               ^"},
		{"socket(family=)", "expected a value for family\n  socket(family=)\n                ^"},
		{"socket(family=AF_NOPELIKE)", "\"AF_NOPELIKE\" is neither a number of 32 bits nor a socket family\n  socket(family=AF_NOPELIKE)\n                ^"},
		{"socket(family=0x100000026)", "\"0x100000026\" is neither a number of 32 bits nor a socket family\n  socket(family=0x100000026)\n                ^"},
		{"socket(arg0!=1)", "!= takes 32 bits: write arg0.low or arg0.high\n  socket(arg0!=1)\n         ^"},
		{"socket(arg0.mid=1)", "no half \"mid\" of a register: write low or high\n  socket(arg0.mid=1)\n              ^"},
		{"socket(family=1,arg0=1)", "args[0].lo is given twice\n  socket(family=1,arg0=1)\n                  ^"},
		{"socket(family!=any)", "nothing is unequal to any\n  socket(family!=any)\n                 ^"},
		{"socket(abi=amd64)", "no ABI \"amd64\": there are x86-64, i386, x32, aarch64, arm, s390x, s390, riscv64, loong64, ppc64le, ppc64, ppc, mips64, mips64n32, mips, mipsel64, mipsel64n32, mipsel\n  socket(abi=amd64)\n             ^"},
		{"socket(abi!=x32)", "abi takes = only\n  socket(abi!=x32)\n         ^"},
		{"socket(abi=x32,abi=x32)", "abi is given twice\n  socket(abi=x32,abi=x32)\n                 ^"},
		{"socket(family=1", "expected \",\" or \")\"\n  socket(family=1\n                 ^"},
		{"socket(family=AF_RXPRC)", "\"AF_RXPRC\" is neither a number of 32 bits nor a socket family; did you mean \"AF_RXRPC\"?\n  socket(family=AF_RXPRC)\n                ^"},
		{"socket(type=SOCK_RWA)", "\"SOCK_RWA\" is neither a number of 32 bits nor a socket type; did you mean \"SOCK_RAW\"?\n  socket(type=SOCK_RWA)\n              ^"},
		{"socket(type!=SOCK_RAW)", "SOCK_RAW stands for a type with its flags, and for nothing but = alone: write a number\n  socket(type!=SOCK_RAW)\n               ^"},
		{"socket(type=SOCK_DGRAM..SOCK_RAW)", "SOCK_DGRAM stands for a type with its flags, and for nothing but = alone: write a number\n  socket(type=SOCK_DGRAM..SOCK_RAW)\n              ^"},
		{"socket(protocol=NETLINK_XFRM)", "\"NETLINK_XFRM\" is neither a number of 32 bits nor a protocol whose family is given\n  socket(protocol=NETLINK_XFRM)\n                  ^"},
		{"socket(family=AF_INET,protocol=NETLINK_XFRM)", "\"NETLINK_XFRM\" is neither a number of 32 bits nor a protocol of AF_INET\n  socket(family=AF_INET,protocol=NETLINK_XFRM)\n                                 ^"},
		{"socket(protocol=NETLINK_XFMR,family=AF_NETLINK)", "\"NETLINK_XFMR\" is neither a number of 32 bits nor a protocol of AF_NETLINK; did you mean \"NETLINK_XFRM\"?\n  socket(protocol=NETLINK_XFMR,family=AF_NETLINK)\n                  ^"},
		{"socket(family=AF_ALG..AF_KEY)", "the range ends before it begins: 15 is less than 38\n  socket(family=AF_ALG..AF_KEY)\n                        ^"},
		{"socket(family=1..)", "\"\" is neither a number of 32 bits nor a socket family\n  socket(family=1..)\n                   ^"},
		{"socket(family!=1..2)", "a range takes = only\n  socket(family!=1..2)\n                 ^"},
		{"socket(arg0=1..2)", "a range takes 32 bits: write arg0.low or arg0.high\n  socket(arg0=1..2)\n         ^"},
		{"setsockopt(level=SOL_TPC)", "\"SOL_TPC\" is neither a number of 32 bits nor a level of options; did you mean \"SOL_TCP\"?\n  setsockopt(level=SOL_TPC)\n                   ^"},
		{"setsockopt(option=TCP_ULP)", "\"TCP_ULP\" is neither a number of 32 bits nor an option whose level is given\n  setsockopt(option=TCP_ULP)\n                    ^"},
		{"setsockopt(level=SOL_TCP,option=TCP_UPL)", "\"TCP_UPL\" is neither a number of 32 bits nor an option of level SOL_TCP; did you mean \"TCP_ULP\"?\n  setsockopt(level=SOL_TCP,option=TCP_UPL)\n                                  ^"},
		{"clone(flags&CLONE_NEWUSR)", "\"CLONE_NEWUSR\" is neither a number of 32 bits nor a flag that makes a namespace; did you mean \"CLONE_NEWUSER\"?\n  clone(flags&CLONE_NEWUSR)\n              ^"},
		{"clone(flags&0)", "no bits to compare\n  clone(flags&0)\n              ^"},
		{"clone(flags&any)", "& takes bits, and any is none\n  clone(flags&any)\n              ^"},
		{"clone(flags&1=)", "expected what flags & 1 is\n  clone(flags&1=)\n                ^"},
		{"clone(flags&1=3)", "3 has bits that 1 has not: no value meets that\n  clone(flags&1=3)\n                ^"},
		{"clone(flags&1,arg1=2)", "args[1].lo is given twice\n  clone(flags&1,arg1=2)\n                ^"},
		{"socket(,)", "expected a parameter, abi or any\n  socket(,)\n         ^"},
		{"socket(family=1) or so", "nothing may follow the call\n  socket(family=1) or so\n                   ^"},
	}
	for _, test := range tests {
		_, err := ParseQuery(test.query)
		var wrong *QueryError
		if !errors.As(err, &wrong) {
			t.Errorf("%q: %v is no QueryError", test.query, err)
		} else if diff := cmp.Diff(test.want, err.Error()); diff != "" {
			t.Errorf("%q: -want +got:\n%s", test.query, diff)
		}
	}
	q, err := ParseQuery("frobnicate(arg0=1)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Questions(x86); err == nil || !strings.Contains(err.Error(), `knows no system call "frobnicate"`) {
		t.Errorf("unknown call: %v", err)
	}
}

// FuzzQuery shows that a parsed query asks about one number of one ABI at a
// time, and an error points into the text.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"socket(family=AF_RXRPC)", "41(arg0.high!=0, abi=x32)", "socket(any)", "(", "socket(family=",
		"socket(family=33..45, type=SOCK_RAW, protocol=6)", "clone(flags&CLONE_NEWUSER=0)", "setsockopt(level=SOL_TCP,option=TCP_ULP)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuery(text)
		if err != nil {
			var wrong *QueryError
			if !errors.As(err, &wrong) || wrong.Column < 1 || wrong.Column > len(wrong.Text)+1 || wrong.Error() == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		questions, err := q.Questions(x86)
		if err != nil {
			return
		}
		for _, question := range questions {
			abi := question.Call.ABI
			d := cbpf.Data{Arch: abi.Audit ^ 1, Nr: question.Call.Nr}
			if question.Region.Contains(d) {
				t.Fatalf("%q asks on %s about another ABI", text, abi.Name)
			}
		}
	})
}
