package probe

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// gateFlag is a bit of the type that is no flag of any kernel. The kernel
// refuses it with EINVAL before it looks at the family.
const gateFlag = 1 << 4

// gate asks for a socket of a class in a way that makes none, and returns the
// answer to expect if no filter stops it. A type that no kernel knows will do if
// the class has any. Otherwise the type has to be that of the class: where a
// filter sees it, the filters alone are asked; where it does not, a broker may,
// and takes a flag that no kernel knows for one.
func (c call) gate(family, classType, typ, protocol uint32) (ask, unix.Errno) {
	switch {
	case classType == 0:
		return c.socket(family, gateType, protocol), unix.EINVAL
	case c.op == opSocket || c.op == opSocketpair:
		q := c.socket(family, int(typ), protocol)
		q.Gated = true
		return q, unix.ENOSYS
	}
	return c.socket(family, int(typ)|gateFlag, protocol), unix.EINVAL
}

// classHighs are the high halves of registers that a class is asked with.
var classHighs = []uint32{0, 1 << 31}

// socketTrials lists the calls that may make sockets of a class.
func (p *prober) socketTrials(abis []afalg.ABI, class Class) []trial {
	var trials []trial
	s := *class.Sockets
	for _, info := range afalg.Routes() {
		for _, c := range callsOf(abis, info.Route) {
			if c.op == opIOUringPoll || !slices.Contains(classHighs, c.high) {
				continue
			}
			t := trial{name: c.named(string(c.op)), abi: c.abi, own: c.own, ring: c.op == opIOUring, judge: judgeSocket(s)}
			if !c.own {
				t.alive = []ask{{ABI: c.abi.Name, Op: opGetpid}}
			}
			for _, f := range p.controlsFor(c) {
				typ := controlType(f)
				t.control = append(t.control, c.socket(uint32(f), typ, 0))
				gate, _ := c.gate(uint32(f), s.Type, uint32(typ), 0)
				t.gateControl = append(t.gateControl, gate)
			}
			t.gate, t.refusal = c.gate(s.Family, s.Type, s.Type, s.Protocol)
			if p.mayMake(class) {
				for _, typ := range typesOf(s) { // a filter may compare the flags with the type
					t.real = append(t.real, c.socket(s.Family, typ|unix.SOCK_CLOEXEC, s.Protocol), c.socket(s.Family, typ, s.Protocol))
				}
			}
			trials = append(trials, t)
		}
	}
	return trials
}

func (c call) named(what string) string {
	if c.high != 0 {
		what += fmt.Sprintf(" (upper halves %#x)", c.high)
	}
	if !c.own {
		what = c.abi.Name + " " + what
	}
	return what
}

// socket asks for a socket, every register with the high half of the call.
func (c call) socket(family uint32, typ int, protocol uint32) ask {
	high := uint64(c.high) << 32
	q := ask{ABI: c.abi.Name, Op: c.op, Family: uint64(family) | high, Type: int(uint64(typ) | high), Protocol: uint64(protocol) | high}
	if c.op == opIOUring || c.op == opSocketcallSocket || c.op == opSocketcallPair {
		q.Type, q.Protocol = typ, uint64(protocol)
	}
	return q
}

// controlsFor are the control families that no class closes.
func (p *prober) controlsFor(c call) []uint64 {
	open := slices.DeleteFunc(c.controls(), func(family uint64) bool {
		return slices.ContainsFunc(p.opt.Classes, func(class Class) bool {
			return class.Sockets != nil && class.Sockets.Contains(uint32(family), uint32(controlType(family)), 0)
		})
	})
	if len(open) == 0 {
		return c.controls()
	}
	return open
}

// mayMake reports whether real sockets of a class load no module.
func (p *prober) mayMake(class Class) bool {
	_, loadsNothing := p.host.NoAutoload()
	return p.opt.Load || loadsNothing || slices.ContainsFunc(class.Modules, p.host.HasModule)
}

// typesOf are the types by which real sockets of a class are asked for.
func typesOf(s afalg.Sockets) []int {
	if s.Type != 0 {
		return []int{int(s.Type)}
	}
	return []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET}
}

func judgeSocket(s afalg.Sockets) func(*prober, tried) Outcome {
	return func(p *prober, t tried) Outcome {
		o, decided := t.begin(p)
		switch {
		case decided:
			return o
		case slices.ContainsFunc(t.real, func(a answer) bool { return a.OK }):
			o.Verdict, o.Detail = Open, "a socket was obtained"
			return o
		case o.Filter == Denies:
			return t.closedByFilter(o)
		case o.Filter != Passes:
			return undecided(o, t.gate)
		case len(t.real) == 0:
			o.Verdict, o.Detail = Loadable, "no filter stops it; a real call, which might load a module, was not made (--load makes it)"
			return o
		case s.Whole():
			return t.behindFilters(o, ofFamily)
		}
		return t.behindFilters(o, narrower)
	}
}

// behind says what the kernel's answers to real calls mean.
type behind struct {
	errnos  []unix.Errno
	verdict Verdict
	detail  string
}

var (
	paired   = behind{[]unix.Errno{unix.EOPNOTSUPP}, Open, "reaches the family, which makes no pairs: no descriptor, but it would load the module"}
	lacksCap = behind{[]unix.Errno{unix.EPERM}, Undecided, "no filter stops it; the kernel asks for a capability, which a user namespace may give, or an LSM denies it"}
	byLSM    = behind{[]unix.Errno{unix.EACCES}, Closed, "denied behind the filters, by an LSM (AppArmor, SELinux, BPF)"}

	// In the order in which the answers to several types are told.
	ofFamily = []behind{
		paired, {[]unix.Errno{unix.ESOCKTNOSUPPORT, unix.EPROTONOSUPPORT}, Open, "no filter stops it, and the kernel has the family"}, lacksCap, byLSM,
		{[]unix.Errno{unix.EAFNOSUPPORT}, Absent, "no filter stops it; this kernel has no such family"},
	}
	narrower = []behind{
		paired, lacksCap, byLSM,
		{[]unix.Errno{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT}, Absent, "no filter stops it; this kernel makes no such socket"},
	}
)

func (t tried) behindFilters(o Outcome, meanings []behind) Outcome {
	for _, b := range meanings {
		i := slices.IndexFunc(t.real, func(a answer) bool { return a.Signal == "" && !a.Hung && slices.Contains(b.errnos, a.Errno) })
		if i >= 0 {
			o.Verdict, o.Errno, o.Detail = b.verdict, t.real[i].String(), b.detail
			return o
		}
	}
	return undecided(o, t.real[0])
}
