package probe

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// evidence is the set of answers about one call.
type evidence struct {
	call                        call
	alive, control, gateControl []answer
	gate                        answer
	real                        []answer
}

// facts are further facts of the host.
type facts struct {
	registered bool        // the family is registered
	load       bool        // real calls were allowed to load it
	ioUring    func() bool // whether the kernel is known to have io_uring
	algorithm  string      // bound on the socket
}

// judge decides about a call. A call that fits no case is undecided.
func judge(e evidence, f facts) Outcome {
	o := Outcome{Control: e.controlled(), Filter: e.filter()}
	outcome := func(v Verdict, errno, detail string) Outcome {
		o.Verdict, o.Errno, o.Detail = v, errno, detail
		return o
	}
	if a, ok := e.obtained(); ok {
		return o.opened(a, e.call, f)
	}
	if why := e.unavailable(f); why != "" && o.Filter != Passes {
		o.Filter = Uncertain
		return outcome(Unavailable, "", why)
	}
	if len(e.real) > 0 {
		worst := slices.MinFunc(e.real, func(a, b answer) int {
			va, _ := e.denial(a, o.Filter, f)
			vb, _ := e.denial(b, o.Filter, f)
			return slices.Index(byWorry, va) - slices.Index(byWorry, vb)
		})
		v, why := e.denial(worst, o.Filter, f)
		return outcome(v, worst.String(), why)
	}
	switch o.Filter {
	case Passes:
		return outcome(Loadable, "", "no filter stops it; the module is not loaded, and a real call might load it (--load asks)")
	case Denies:
		return outcome(Closed, e.gate.String(), e.closedBy())
	}
	return outcome(Undecided, e.gate.String(), "the answers do not tell whether a filter stops it; --load asks with a real call")
}

// obtained returns the real answer that is a socket, AF_ALG sockets first. A
// socketpair counts when the family itself refused to make a pair.
func (e evidence) obtained() (answer, bool) {
	var got []answer
	for _, a := range e.real {
		if a.OK || e.pair() && a.is(unix.EOPNOTSUPP) {
			got = append(got, a)
		}
	}
	if len(got) == 0 {
		return answer{}, false
	}
	if i := slices.IndexFunc(got, func(a answer) bool { return a.Domain == afalg.Family }); i >= 0 {
		return got[i], true
	}
	return got[0], true
}

func (e evidence) pair() bool { return e.call.op == opSocketpair || e.call.op == opSocketcallPair }

// opened fills in the outcome for a socket. An unreadable domain counts as
// AF_ALG.
func (o Outcome) opened(a answer, c call, f facts) Outcome {
	o.Bind = a.Bind
	switch {
	case !a.OK:
		o.Verdict, o.Errno = Open, a.String()
		o.Detail = "reaches the family, which makes no pairs: no descriptor, but it would load the module"
		return o
	case a.Domain != 0 && a.Domain != afalg.Family:
		o.Verdict = Brokered
		o.Detail = "a broker handed out a placeholder"
	default:
		o.Verdict = Open
		o.Detail = "an AF_ALG socket was obtained"
	}
	switch a.Bind {
	case "":
		o.Bind = "not asked"
	case "ok":
		o.Detail += fmt.Sprintf("; %s can be bound", f.algorithm)
	case "ENOENT":
		o.Detail += fmt.Sprintf("; %s is missing or denied at bind", f.algorithm)
	default:
		o.Detail += fmt.Sprintf("; binding %s gives %s", f.algorithm, a.Bind)
	}
	return o
}

// controlled is "ok" if any control family gave a socket, or else the failure
// of the first one.
func (e evidence) controlled() string {
	if i := e.goodControl(); i >= 0 {
		return "ok"
	}
	return e.control[0].String()
}

// goodControl returns the index of the first control that succeeded, or -1.
func (e evidence) goodControl() int {
	return slices.IndexFunc(e.control, func(a answer) bool { return a.OK })
}

// filter returns what the filters do with the call.
func (e evidence) filter() Filter {
	switch i := e.goodControl(); {
	case e.gate.is(unix.EINVAL) && e.gate.Stage == "" && (i >= 0 || !e.ring()):
		return Passes
	case !e.gate.denied():
		return Uncertain
	case i < 0, e.gateControl[i].is(unix.EINVAL):
		return Denies
	}
	return Uncertain
}

func (e evidence) ring() bool { return e.call.op == opIOUring || e.call.op == opIOUringPoll }

// unavailable says why the machine does not have the route, or "". All
// questions must have met the same end: a difference between families is a
// policy.
func (e evidence) unavailable(f facts) string {
	first := e.control[0]
	if first.OK || first.Stage != e.gate.Stage || first.String() != e.gate.String() {
		return ""
	}
	for _, a := range e.alive {
		switch {
		case a.Signal == "SIGSEGV" && first.Signal == a.Signal:
			return "this kernel does not run 32-bit programs"
		case a.is(unix.ENOSYS) && first.is(unix.ENOSYS) && e.call.abi.Kind == afalg.X32:
			return "this kernel does not run x32 programs, or a filter denies all of x32 with ENOSYS"
		}
	}
	switch {
	case !e.ring() || e.goodControl() >= 0:
		return ""
	case first.Stage == stageSetup && first.is(unix.ENOSYS) && !f.ioUring():
		return "this kernel has no io_uring, as far as can be seen"
	case first.Stage == "" && first.is(unix.EINVAL):
		return "this kernel's io_uring makes no sockets (IORING_OP_SOCKET is in Linux 5.19)"
	}
	return ""
}

// denial judges a real call that gave no socket.
func (e evidence) denial(a answer, filter Filter, f facts) (Verdict, string) {
	switch {
	case !a.denied():
		return Undecided, "the call did not come to an end: " + a.String()
	case filter == Denies:
		return Closed, e.closedBy()
	case filter == Uncertain && a.is(unix.EAFNOSUPPORT):
		return Absent, "a real call finds no AF_ALG; whether by a filter or for want of it cannot be told"
	case a.is(unix.EAFNOSUPPORT) && f.registered:
		return Closed, "the family is registered and refuses (crypto.af_alg_restrict=2, or a policy in the kernel)"
	case a.is(unix.EAFNOSUPPORT) && f.load:
		return Absent, "no filter stops it; a request for the module brought no AF_ALG"
	case a.is(unix.EAFNOSUPPORT):
		return Absent, "no filter stops it; this kernel has no AF_ALG"
	case a.is(unix.EACCES), a.is(unix.EPERM):
		return Closed, "denied behind the filters, by an LSM (AppArmor, SELinux, BPF)"
	}
	return Closed, "denied with an error that the kernel does not give here: by a filter that looks at the type, or an LSM"
}

// closedBy says how much a filter closes.
func (e evidence) closedBy() string {
	how := "a filter answers " + e.gate.String()
	if e.gate.Signal != "" {
		how = "a filter kills with " + e.gate.Signal
	}
	switch i := e.goodControl(); {
	case i < 0:
		how += ", to other families too: the whole route is closed"
	case i > 0:
		how += fmt.Sprintf("; AF_INET gives %s as well", e.control[0])
	}
	return how
}

// unreachable is the outcome for an ABI that this build cannot enter.
func unreachable(c call) Outcome {
	if !mayRun(c.abi) {
		return Outcome{Verdict: Unavailable, Filter: Uncertain, Detail: "this machine does not run " + c.abi.Name + " programs"}
	}
	return Outcome{Verdict: Undecided, Filter: Uncertain,
		Detail: fmt.Sprintf("not available on this architecture build: ask with a %s program", c.abi.Name)}
}
