package cbpf

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// show writes an outcome as "ACTION [witness]; …", and "?KIND" for an unknown
// answer.
func show(o Outcome) string {
	var parts []string
	for _, f := range o.Found {
		parts = append(parts, fmt.Sprintf("%v [%v]", f.Action, f.Witness))
	}
	for k, a := range o.Possible {
		if a == Unknown {
			parts = append(parts, "?"+Kind(k).String())
		}
	}
	return strings.Join(parts, "; ")
}

func TestDecide(t *testing.T) {
	const low, high, low1 = offArgs, offArgs + 4, offArgs + 8
	denyIf := func(p ...unix.SockFilter) Program { // the last instruction branches over one
		return append(p, ret(allow), ret(errno|97))
	}
	tests := []struct {
		name    string
		program Program
		region  Region
		want    string
	}{
		{"equality", denyIf(load(low), jump(unix.BPF_JEQ, 38, 1, 0)), Everything,
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=38]; ALLOW [arch=0x00000000 nr=0]"},
		{"equality, proved", denyIf(load(low), jump(unix.BPF_JEQ, 38, 1, 0)), Everything.With(ArgLow(0), Exactly(38)),
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=38]"},
		{"the other half", denyIf(load(high), jump(unix.BPF_JEQ, 0, 1, 0)), Everything.With(ArgHigh(0), Not(0)),
			"ALLOW [arch=0x00000000 nr=0 args[0]=0x100000000]"},
		{"interval inside", denyIf(load(low), jump(unix.BPF_JGE, 38, 1, 0)), Everything.With(ArgLow(0), Between(38, 45)),
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=38]"},
		{"interval across", denyIf(load(low), jump(unix.BPF_JGT, 44, 1, 0)), Everything.With(ArgLow(0), Between(38, 45)),
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=45]; ALLOW [arch=0x00000000 nr=0 args[0]=38]"},
		{"mask", denyIf(load(low), alok(unix.BPF_AND, 0xff00), jump(unix.BPF_JEQ, 0x1200, 1, 0)), Everything.With(ArgLow(0), Masked(0xf00, 0x200)),
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=0x1200]; ALLOW [arch=0x00000000 nr=0 args[0]=512]"},
		{"mask, proved", denyIf(load(low), alok(unix.BPF_AND, 0xff00), jump(unix.BPF_JEQ, 0x1200, 1, 0)), Everything.With(ArgLow(0), Masked(0xf00, 0x300)),
			"ALLOW [arch=0x00000000 nr=0 args[0]=768]"},
		{"bits", denyIf(load(low), jump(unix.BPF_JSET, 0x81, 1, 0)), Everything.With(ArgLow(0), Masked(0x80, 0)),
			"ERRNO(97) [arch=0x00000000 nr=0 args[0]=1]; ALLOW [arch=0x00000000 nr=0]"},
		{"two words compared, proved", Program{load(low), stmt(opTAX, 0), load(low1), jump(unix.BPF_JEQ|unix.BPF_X, 0, 0, 3),
			load(low), jump(unix.BPF_JEQ|unix.BPF_X, 0, 0, 1), ret(errno | 97), ret(allow)}, Everything.With(ArgLow(0), Between(5, 6)).With(ArgLow(1), Between(7, 9)),
			"ALLOW [arch=0x00000000 nr=0 args[0]=5 args[1]=7]"},
		{"two words compared over all values", Program{load(low), stmt(opTAX, 0), load(low1), jump(unix.BPF_JGT|unix.BPF_X, 0, 0, 2),
			alox(unix.BPF_SUB), jump(unix.BPF_JEQ, 0, 1, 0), ret(errno | 97), ret(unix.SECCOMP_RET_TRAP)}, Everything.With(Arch, Exactly(1)).With(Nr, Exactly(2)),
			"ERRNO(97) [arch=0x00000001 nr=2]"},
		{"a product over all values", denyIf(load(low), alok(unix.BPF_MUL, 6), jump(unix.BPF_JEQ, 3, 1, 0)), Everything,
			"ALLOW [arch=0x00000000 nr=0]"},
		{"a quotient over all values", denyIf(load(low), alok(unix.BPF_DIV, 3), jump(unix.BPF_JGT, 0x55555555, 1, 0)), Everything,
			"ALLOW [arch=0x00000000 nr=0]"},
		{"division by X", Program{load(low), stmt(opTAX, 0), stmt(opImm, 6), alox(unix.BPF_DIV), ret(allow)}, Everything.With(ArgLow(0), Between(0, 1)),
			"KILL_THREAD [arch=0x00000000 nr=0]; ALLOW [arch=0x00000000 nr=0 args[0]=1]"},
		{"a shift that the machine decides", Program{load(low), stmt(opTAX, 0), stmt(opImm, 1), alox(unix.BPF_LSH), jump(unix.BPF_JSET, 0xff, 0, 1), ret(allow), ret(errno | 97)},
			Everything.With(ArgLow(0), Exactly(40)), "ERRNO(97) [arch=0x00000000 nr=0 args[0]=40]; ?ALLOW"},
		{"a shift by a known X", Program{stmt(opImmX, 4), load(low), alox(unix.BPF_RSH), jump(unix.BPF_JEQ, 2, 1, 0), ret(allow), ret(errno | 97)},
			Everything.With(ArgLow(0), Exactly(38)), "ERRNO(97) [arch=0x00000000 nr=0 args[0]=38]"},
		{"scratch memory", Program{load(low), stmt(opStore, 0), load(high), stmt(opLoadXMem, 0), stmt(opTXA, 0), jump(unix.BPF_JEQ, 38, 1, 0), ret(allow), ret(kill)},
			Everything.With(ArgLow(0), Exactly(38)), "KILL_PROCESS [arch=0x00000000 nr=0 args[0]=38]"},
		{"return A", Program{load(low), stmt(opRetA, 0)}, Everything.With(ArgLow(0), Masked(0xfffffffe, 0x00050060)),
			"ERRNO(96) [arch=0x00000000 nr=0 args[0]=0x50060]; ERRNO(97) [arch=0x00000000 nr=0 args[0]=0x50061]"},
		{"return A, unknown action", Program{load(low), stmt(opRetA, 0)}, Everything.With(ArgLow(0), Between(0x7ffd0000, 0x7ffeffff)),
			"KILL_PROCESS [arch=0x00000000 nr=0 args[0]=0x7ffd0000]"},
		{"return A, anything", Program{load(offNr), alok(unix.BPF_AND, 0xffff0000), stmt(opRetA, 0)}, Everything,
			"KILL_PROCESS [arch=0x00000000 nr=-2147483648]; KILL_THREAD [arch=0x00000000 nr=0]; TRAP [arch=0x00000000 nr=196608]; " +
				"ERRNO(0) [arch=0x00000000 nr=327680]; NOTIFY [arch=0x00000000 nr=2143289344]; TRACE [arch=0x00000000 nr=2146435072]; " +
				"LOG [arch=0x00000000 nr=2147221504]; ALLOW [arch=0x00000000 nr=2147418112]"},
		{"dead code", Program{ret(errno | 1), ret(allow)}, Everything, "ERRNO(1) [arch=0x00000000 nr=0]"},
		{"an empty region proves nothing", Program{ret(errno)}, Everything.With(Nr, Between(2, 1)),
			"?KILL_PROCESS; ?KILL_THREAD; ?TRAP; ?ERRNO; ?NOTIFY; ?TRACE; ?LOG; ?ALLOW"},
		{"a contradiction in bits", Program{ret(errno)}, Everything.With(Nr, Masked(1, 2)),
			"?KILL_PROCESS; ?KILL_THREAD; ?TRAP; ?ERRNO; ?NOTIFY; ?TRACE; ?LOG; ?ALLOW"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := Filter{tt.program}.Actions(tt.region, Little, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(o); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			replayAll(t, Filter{tt.program}, tt.region, Little, o)
		})
	}
}

// adversaries are programs of the greatest legal length, built against
// enumeration of paths and against decision diagrams.
func adversaries() map[string]Program {
	return map[string]Program{
		"diamonds": fill(func(i int) Program { // counts bits: 2^n paths, few sums
			return Program{load(offArgs + uint32(4*i%48)), jump(unix.BPF_JSET, 1<<(i%32), 0, 3),
				stmt(opLoadMem, 0), alok(unix.BPF_ADD, 1), stmt(opStore, 0)}
		}, 5000),
		"history": fill(func(i int) Program { // every path leaves another value
			return Program{load(offArgs + uint32(4*i%48)), jump(unix.BPF_JSET, 1<<(i%32), 0, 4),
				stmt(opLoadMem, 0), alok(unix.BPF_MUL, 31), alok(unix.BPF_ADD, uint32(i)), stmt(opStore, 0)}
		}, 0x1234567),
		"hash": fill(func(i int) Program {
			return Program{load(offArgs + uint32(4*i%48)), stmt(opLoadXMem, 0), alox(unix.BPF_XOR),
				alok(unix.BPF_MUL, 0x01000193), stmt(opStore, 0)}
		}, 0xdeadbeef),
		"products": fill(func(i int) Program {
			return Program{load(offArgs + uint32(4*i%48)), stmt(opTAX, 0), load(offArgs + uint32(4*(i+7)%48)),
				alox(unix.BPF_MUL), jump(unix.BPF_JGT, uint32(i)<<20, 0, 1), stmt(opStore, 0)}
		}, 77),
		"comparisons": fill(func(i int) Program { // orders the twelve words of the arguments
			return Program{load(offArgs + uint32(4*i%48)), stmt(opTAX, 0), load(offArgs + uint32(4*(i*5+1)%48)),
				jump(unix.BPF_JGT|unix.BPF_X, 0, 1, 0), stmt(opStore, 0)}
		}, 3),
	}
}

// fill repeats a block up to the limit and allows a call if M[0] ends up as
// magic.
func fill(block func(int) Program, magic uint32) Program {
	p := Program{stmt(opStore, 0)}
	end := Program{stmt(opLoadMem, 0), jump(unix.BPF_JEQ, magic, 0, 1), ret(allow), ret(errno | 1)}
	for i := 0; ; i++ {
		b := block(i)
		if len(p)+len(b)+len(end) > MaxInstructions {
			return append(p, end...)
		}
		p = append(p, b...)
	}
}

// TestAdversaries wants an honest answer from programs that are made to be
// hard: no claim that ALLOW cannot be reached, unless it cannot.
// BenchmarkAdversaries measures the time.
func TestAdversaries(t *testing.T) {
	budget := 0
	if testing.Short() {
		budget = DefaultBudget / 16
	}
	for name, p := range adversaries() {
		o, err := Filter{p}.Actions(Everything.With(Nr, Exactly(41)), Little, budget)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: ALLOW %v, ERRNO %v", name, o.Possible[Allow], o.Possible[Errno])
		if o.Possible[Errno] != Yes {
			t.Errorf("%s: ERRNO is %v", name, o.Possible[Errno])
		}
		if reachable := name != "diamonds"; reachable && o.Possible[Allow] == No {
			t.Errorf("%s: ALLOW is said to be out of reach", name)
		}
	}
}

func BenchmarkAdversaries(b *testing.B) {
	for name, p := range adversaries() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := (Filter{p}).Actions(Everything, Little, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkChain shows the growth with the size of a program like those that
// libseccomp makes at level 1: a chain of numbers, some with an argument.
func BenchmarkChain(b *testing.B) {
	for _, n := range []int{64, 256, 1024, 4096} {
		p := Program{load(offNr)}
		for nr := uint32(0); len(p)+7 < n; nr += 2 {
			p = append(p, jump(unix.BPF_JEQ, nr, 0, 1), ret(allow),
				jump(unix.BPF_JEQ, nr+1, 0, 4), load(offArgs), jump(unix.BPF_JEQ, nr, 0, 1), ret(allow), ret(errno|1))
		}
		p = append(p, ret(errno|38))
		b.Run(fmt.Sprintf("everything/%d", n), func(b *testing.B) { benchmarkRegion(b, p, Everything) })
		b.Run(fmt.Sprintf("one-call/%d", n), func(b *testing.B) { benchmarkRegion(b, p, Everything.With(Nr, Exactly(9999))) })
	}
}

func benchmarkRegion(b *testing.B, p Program, r Region) {
	for b.Loop() {
		if o, err := (Filter{p}).Actions(r, Little, 0); err != nil || !o.decided() {
			b.Fatal(o, err)
		}
	}
}
