package probe

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// machine lists the ABIs of a machine by GOARCH, the prober's own first: a
// kernel of 64 bits may run a prober of 32. reach has those that the prober
// itself can enter.
func machine(goarch string) []afalg.ABI {
	own, known := afalg.ABIOfGOARCH(goarch)
	if !known {
		return nil
	}
	others := slices.DeleteFunc(afalg.Siblings(own.Arch), func(a afalg.ABI) bool { return a == own })
	return append([]afalg.ABI{own}, others...)
}

// op is the kind of a call.
type op string

const (
	opGetpid           op = "getpid"
	opSocket           op = "socket"
	opSocketpair       op = "socketpair"
	opSocketcallSocket op = "socketcall(1)"
	opSocketcallPair   op = "socketcall(8)"
	opIOUring          op = "io_uring"
	opIOUringPoll      op = "io_uring SQPOLL" // submits without io_uring_enter

	// Of denied classes.
	opSetsockopt           op = "setsockopt"
	opSocketcallSetsockopt op = "socketcall(14)"
	opClone                op = "clone"
	opUnshare              op = "unshare"
	opClone3               op = "clone3"
)

// call is one spelling of a route: an ABI, an op, and the high half of the
// register with the family.
type call struct {
	abi  afalg.ABI
	own  bool // the prober's own ABI
	op   op
	high uint32
}

func (c call) String() string {
	s := string(c.op)
	if c.op == opSocket || c.op == opSocketpair {
		s += fmt.Sprintf("(%s)", c.spelled())
	}
	if !c.own {
		s = c.abi.Name + " " + s
	}
	return s
}

func (c call) spelled() string {
	if c.high == 0 {
		return fmt.Sprint(afalg.Family)
	}
	return fmt.Sprintf("%d|%#x<<32", afalg.Family, c.high)
}

func (c call) family(f uint64) uint64 { return f | uint64(c.high)<<32 }

func (c call) reachable() bool { return reach[c.abi.Name] != nil }

// highs are the high halves to try: a filter may know one of them by value, or
// compare signed.
var highs = []uint32{1, 7, 1 << 31, 1<<32 - 1}

// callsOf lists the calls of a route on a machine with these ABIs.
func callsOf(abis []afalg.ABI, route afalg.Route) []call {
	var calls []call
	add := func(a afalg.ABI, number uint32, o op, high ...uint32) {
		if number == 0 {
			return
		}
		for _, h := range high {
			calls = append(calls, call{a, a == abis[0], o, h})
		}
	}
	for _, a := range abis {
		canonical, spelled := []uint32{0}, []uint32{0}
		if a.Kind != afalg.Compat {
			spelled = append(spelled, highs...)
		}
		switch {
		case route == afalg.RouteSocket && a.Kind == afalg.Native:
			add(a, a.Socket, opSocket, canonical...)
		case route == afalg.RouteSocketHighbits && a.Kind == afalg.Native:
			add(a, a.Socket, opSocket, highs...)
		case route == afalg.RouteCompatSocket && a.Kind == afalg.Compat:
			add(a, a.Socket, opSocket, canonical...)
		case route == afalg.RouteX32Socket && a.Kind == afalg.X32:
			add(a, a.Socket, opSocket, spelled...)
		case route == afalg.RouteCompatSocketcall:
			add(a, a.Socketcall, opSocketcallSocket, canonical...)
		case route == afalg.RouteSocketpair:
			add(a, a.Socketpair, opSocketpair, spelled...)
			add(a, a.Socketcall, opSocketcallPair, canonical...)
		case route == afalg.RouteIOUring:
			add(a, a.IOUring, opIOUring, canonical...)
			add(a, a.IOUring, opIOUringPoll, canonical...)
		}
	}
	return calls
}

// gateType is above every socket type (SOCK_MAX is 11) and within
// SOCK_TYPE_MASK, so that the kernel refuses it as a type and not as a flag.
const gateType = 15

// controls are the families of the positive control, in the order tried.
func (c call) controls() []uint64 {
	if c.op == opSocketpair || c.op == opSocketcallPair {
		return []uint64{unix.AF_UNIX}
	}
	return []uint64{unix.AF_INET, unix.AF_UNIX, unix.AF_NETLINK}
}

// controlType is a type that a control family has.
func controlType(family uint64) int {
	if family == unix.AF_NETLINK {
		return unix.SOCK_RAW
	}
	return unix.SOCK_STREAM
}

// asks are the questions about a call.
type asks struct {
	alive       []ask // of a foreign ABI: one
	control     []ask // one a control family
	gateControl []ask // the same
	gate        []ask // one
	real        []ask // none, or one a spelling of the type
}

// asks returns no questions for a call that cannot be made.
func (p *prober) asks(c call) asks {
	if !c.reachable() {
		return asks{}
	}
	q := func(o op, family uint64, typ int) ask {
		return ask{ABI: c.abi.Name, Op: o, Family: c.family(family), Type: typ}
	}
	var a asks
	if !c.own {
		a.alive = []ask{q(opGetpid, 0, 0)}
	}
	for _, f := range c.controls() {
		a.control = append(a.control, q(c.op, f, controlType(f)))
		a.gateControl = append(a.gateControl, q(c.op, f, gateType))
	}
	a.gate = []ask{q(c.op, afalg.Family, gateType)}
	if !p.real {
		return a
	}
	for _, flag := range []int{unix.SOCK_CLOEXEC, 0} {
		real := q(c.op, afalg.Family, unix.SOCK_SEQPACKET|flag)
		if p.bind {
			real.Bind = p.opt.Algorithm
		}
		a.real = append(a.real, real)
	}
	return a
}

func (a asks) list() []ask {
	return slices.Concat(a.alive, a.control, a.gateControl, a.gate, a.real)
}

// evidence sorts the answers to list().
func (a asks) evidence(c call, answers []answer) evidence {
	take := func(n int) []answer {
		var head []answer
		head, answers = answers[:n], answers[n:]
		return head
	}
	return evidence{
		call:        c,
		alive:       take(len(a.alive)),
		control:     take(len(a.control)),
		gateControl: take(len(a.gateControl)),
		gate:        take(len(a.gate))[0],
		real:        take(len(a.real)),
	}
}
