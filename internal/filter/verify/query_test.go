package verify

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
		{"socket(family)", "expected \"=\" or \"!=\" after family\n  socket(family)\n               ^"},
		{"socket(family=)", "expected a value for family\n  socket(family=)\n                ^"},
		{"socket(family=AF_NOPE)", "\"AF_NOPE\" is neither a number of 32 bits nor a socket family\n  socket(family=AF_NOPE)\n                ^"},
		{"socket(family=0x100000026)", "\"0x100000026\" is neither a number of 32 bits nor a socket family\n  socket(family=0x100000026)\n                ^"},
		{"socket(arg0!=1)", "!= takes 32 bits: write arg0.low or arg0.high\n  socket(arg0!=1)\n         ^"},
		{"socket(arg0.mid=1)", "no half \"mid\" of a register: write low or high\n  socket(arg0.mid=1)\n              ^"},
		{"socket(family=1,arg0=1)", "args[0].lo is given twice\n  socket(family=1,arg0=1)\n                  ^"},
		{"socket(family!=any)", "nothing is unequal to any\n  socket(family!=any)\n                 ^"},
		{"socket(abi=amd64)", "no ABI \"amd64\": there are x86-64, i386, x32, aarch64, arm, s390x, s390, riscv64, loong64, ppc64le, ppc64, ppc, mips64, mips64n32, mips, mipsel64, mipsel64n32, mipsel\n  socket(abi=amd64)\n             ^"},
		{"socket(abi!=x32)", "abi takes = only\n  socket(abi!=x32)\n         ^"},
		{"socket(abi=x32,abi=x32)", "abi is given twice\n  socket(abi=x32,abi=x32)\n                 ^"},
		{"socket(family=1", "expected \",\" or \")\"\n  socket(family=1\n                 ^"},
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
	for _, seed := range []string{"socket(family=AF_RXRPC)", "41(arg0.high!=0, abi=x32)", "socket(any)", "(", "socket(family="} {
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
