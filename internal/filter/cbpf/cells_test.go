package cbpf

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCells compares the comparison by cells with the exploration, on programs
// that read architecture and number as compiled profiles do.
func TestCells(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	answers := map[Answer]int{}
	for range 500 {
		a := profileLike(random)
		b := a
		if random.IntN(3) > 0 {
			b = append(Program{}, a...)
			b[random.IntN(len(b)-1)].K++
		}
		c := Comparison{Endian: Little}
		if random.IntN(2) == 0 {
			c.Except = []Region{Everything.With(Nr, Exactly(uint32(random.IntN(8)))), Everything.With(ArgLow(0), Exactly(3))}
		}
		fast, ok := c.byCells(Filter{a}, Filter{b})
		if !ok {
			t.Fatalf("not walked: %v", a)
		}
		slow := c.explore(Filter{a}, Filter{b})
		if fast.Equal != slow.Equal {
			t.Fatalf("cells say %v, the exploration %v:\n%v\n%v", fast, slow.Difference, a, b)
		}
		answers[fast.Equal]++
	}
	if answers[Yes] < 50 || answers[No] < 50 {
		t.Errorf("few cases of a kind: %v", answers)
	}
}

// profileLike makes a list of calls, some of which read an argument.
func profileLike(random *rand.Rand) Program {
	const (
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		above = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		bit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	)
	p := Program{
		{Code: opLoad, K: 4}, {Code: equal, K: 7, Jt: 1}, {Code: opRet},
		{Code: opLoad, K: 0}, {Code: bit, K: 1 << 30, Jf: 1}, {Code: opRet, K: unix.SECCOMP_RET_KILL_PROCESS},
	}
	for range 2 + random.IntN(5) {
		allow := unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ALLOW}
		nr := uint32(random.IntN(8))
		switch random.IntN(3) {
		case 0:
			p = append(p, unix.SockFilter{Code: equal, K: nr, Jf: 1}, allow)
		case 1:
			p = append(p, unix.SockFilter{Code: above, K: nr, Jf: 1}, allow)
		default:
			p = append(p, unix.SockFilter{Code: equal, K: nr, Jf: 4}, unix.SockFilter{Code: opLoad, K: 16},
				unix.SockFilter{Code: equal, K: uint32(random.IntN(5)), Jf: 1}, allow, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ERRNO | 1})
		}
	}
	return append(p, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ERRNO | 2})
}

// TestCellsOfEverything shows that nothing is claimed where everything is
// excepted.
func TestCellsOfEverything(t *testing.T) {
	p := Filter{{{Code: opRet, K: unix.SECCOMP_RET_ALLOW}}}
	d, err := Comparison{Except: []Region{Everything}}.Compare(p, p)
	if err != nil || d.Equal != Unknown {
		t.Errorf("%v, %v", d, err)
	}
}

// TestSameTails shows that programs that go on with the same instructions
// agree, however these are laid out, and only if registers agree too.
func TestSameTails(t *testing.T) {
	const (
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		add   = unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K
	)
	allow, deny := unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ERRNO | 1}
	loadArch, loadNr := unix.SockFilter{Code: opLoad, K: 4}, unix.SockFilter{Code: opLoad, K: 0}
	// The rest reads the accumulator, and adds, which no walk follows.
	rest := Program{{Code: add, K: 1}, {Code: equal, K: 8, Jf: 1}, allow, deny}
	tests := []struct {
		name string
		a, b Program
		want Answer
	}{
		{"the same, further down", append(Program{loadNr}, rest...),
			append(Program{loadNr, {Code: opJump, K: 1}, deny}, rest...), Yes},
		{"another field in the accumulator", append(Program{loadNr}, rest...), append(Program{loadArch}, rest...), No},
		{"nothing in the accumulator", append(Program{loadNr}, rest...), rest, No},
		{"a field that is overwritten", Program{loadNr, {Code: opLoad, K: 16}, {Code: equal, K: 8, Jf: 1}, allow, deny},
			Program{loadArch, {Code: opLoad, K: 16}, {Code: equal, K: 8, Jf: 1}, allow, deny}, Yes},
		{"another end", append(Program{loadNr}, rest...), append(Program{loadNr}, rest[0], rest[1], deny, deny), No},
	}
	for _, test := range tests {
		d, ok := Comparison{}.byCells(Filter{test.a}, Filter{test.b})
		slow := Comparison{}.explore(Filter{test.a}, Filter{test.b})
		if !ok || d.Equal != test.want || slow.Equal != test.want {
			t.Errorf("%s: cells say %v (walked: %v), the exploration %v; want %v", test.name, d.Equal, ok, slow.Equal, test.want)
		}
	}
}

// TestCellsWithin compares both ways of comparing inside a region.
func TestCellsWithin(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	answers := map[Answer]int{}
	for range 300 {
		a, b := profileLike(random), profileLike(random)
		if random.IntN(2) == 0 {
			b = append(Program{}, a...)
			b[random.IntN(len(b)-1)].K++
		}
		nr := uint32(random.IntN(8))
		for _, c := range []Constraint{Exactly(nr), Between(nr, nr+2), Between(nr+1, nr), Not(nr), Masked(3, nr&3)} {
			within := Comparison{Within: Everything.With(Arch, Exactly(7)).With(Nr, c)}
			// Of two filters the stricter one wins.
			fast, ok := within.byCells(Filter{a, b}, Filter{b})
			slow := within.explore(Filter{a, b}, Filter{b})
			if ok && fast.Equal != slow.Equal {
				t.Fatalf("number %v: cells say %v, the exploration %v:\n%v\n%v", c, fast, slow.Difference, a, b)
			}
			answers[fast.Equal]++
		}
	}
	if answers[Yes] < 50 || answers[No] < 50 {
		t.Errorf("few cases of a kind: %v", answers)
	}
}
