package harden

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzHarden hardens whatever profile the bytes choose. It may be refused; if
// not, the result is closed, and equal to its base except for what gaps name. The
// oracle runs the programs on many inputs, and knows nothing of the proof.
func FuzzHarden(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 0, 3, 40})
	f.Add([]byte{1, 0, 1, 3, 0, 3, 1, 2, 1, 2, 3, 0})
	f.Add([]byte("deny lists, kept and killed, masked and traced"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := chooser(data)
		arches := [][]specs.Arch{
			{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchX86_64}, {specs.ArchS390X, specs.ArchS390},
			{specs.ArchPPC64LE}, {specs.ArchAARCH64, specs.ArchARM},
		}[c.below(5)]
		src := encode(t, c.profile(arches))
		o := ways(src, arches[0])[c.below(4)]
		hardened, gaps, err := hardenAccepting(o)
		if err != nil {
			return
		}
		if err := judge(o, hardened, gaps); err != nil {
			t.Errorf("%s, socketcall %s, broker %q: %v", src, o.Socketcall, o.Broker, err)
		}
	})
}

// chooser makes choices of bytes; it chooses the first of all when they are
// used up.
type chooser []byte

func (c *chooser) below(n int) int {
	if len(*c) == 0 {
		return 0
	}
	v := int((*c)[0]) % n
	*c = (*c)[1:]
	return v
}

func (c *chooser) profile(arches []specs.Arch) specs.LinuxSeccomp {
	defaults := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActLog, specs.ActKillProcess}
	p := specs.LinuxSeccomp{DefaultAction: defaults[c.below(4)], Architectures: arches}
	if c.below(2) == 0 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"read", "clone3"}, Action: specs.ActAllow})
	}
	const most = 6
	for range c.below(most) {
		p.Syscalls = append(p.Syscalls, c.rule())
	}
	return p
}

func (c *chooser) rule() specs.LinuxSyscall {
	names := []string{"socket", "socketpair", "socketcall", "bind", "read", "accept", "setsockopt", "prctl", "io_uring_setup", "connect"}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog}
	r := specs.LinuxSyscall{Names: []string{names[c.below(len(names))]}, Action: actions[c.below(len(actions))]}
	if errno := uint(c.below(100)); errno > 1 && r.Action == specs.ActErrno {
		r.ErrnoRet = &errno
	}
	operators := []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual,
	}
	values := []uint64{0, 1, 2, 3, unix.AF_NETLINK, unix.AF_PACKET, 37, unix.AF_ALG, 39, unix.AF_VSOCK, 45, 46, 88, 279, 1 << 32}
	for i := range uint(3) {
		if c.below(2) == 0 {
			continue
		}
		a := specs.LinuxSeccompArg{Index: i, Op: operators[c.below(len(operators))], Value: values[c.below(len(values))]}
		if a.Op == specs.OpMaskedEqual {
			a.Value, a.ValueTwo = lowWord, a.Value&lowWord
		}
		r.Args = append(r.Args, a)
	}
	return r
}
