package probe

import (
	"encoding/binary"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// namespaceNumbers are the calls that make namespaces, on ABIs other than the
// prober's own.
var namespaceNumbers = map[string]namespaceCalls{"i386": {120, 310, 435}, "x32": {56, 272, 435}}

type namespaceCalls struct{ clone, unshare, clone3 uint32 }

func numbersOf(a afalg.ABI) namespaceCalls {
	if n, ok := namespaceNumbers[a.Name]; ok && a.Name != machine(runtime.GOARCH)[0].Name {
		return n
	}
	return namespaceCalls{unix.SYS_CLONE, unix.SYS_UNSHARE, unix.SYS_CLONE3}
}

// namespaceTrials lists the calls that make a user namespace. They are really
// made: by a child that ends at once. The gate adds a flag that the kernel
// refuses with EINVAL.
func namespaceTrials(abis []afalg.ABI) []trial {
	var trials []trial
	for _, a := range abis {
		for _, v := range []struct {
			op            op
			gate, refused uint64 // refused with CLONE_NEWUSER; refused without it as well
		}{{opClone, unix.CLONE_FS, unix.CLONE_NEWNS}, {opUnshare, 1, 0}, {opClone3, 1, 0}} {
			c := call{a, a == abis[0], v.op, 0}
			flagged := func(flags uint64) []ask { return []ask{{ABI: a.Name, Op: v.op, Flags: flags}} }
			t := trial{name: c.named(string(v.op)), abi: a, own: c.own, refusal: unix.EINVAL, judge: (*prober).judgeNamespace}
			t.control, t.gateControl = flagged(0), flagged(v.gate|v.refused)
			t.gate, t.real = flagged(unix.CLONE_NEWUSER | v.gate)[0], flagged(unix.CLONE_NEWUSER)
			if !c.own {
				t.alive = []ask{{ABI: a.Name, Op: opGetpid}}
			}
			trials = append(trials, t)
		}
	}
	return trials
}

// judgeNamespace takes the kernel's word: what was refused was refused. EINVAL
// is also the answer of a kernel without user namespaces.
func (p *prober) judgeNamespace(t tried) Outcome {
	o, decided := t.begin(p)
	a := t.real[0]
	outcome := func(v Verdict, f Filter, detail string) Outcome {
		o.Verdict, o.Filter, o.Errno, o.Detail = v, f, a.String(), detail
		return o
	}
	whole := ""
	if t.good() < 0 {
		whole = ", to all that is asked by this call: it is closed as a whole"
	}
	switch {
	case decided:
		return o
	case a.OK:
		o.Verdict, o.Filter, o.Detail = Open, Passes, "a user namespace was made"
		return o
	case a.Signal == "SIGSYS":
		return outcome(Closed, Denies, "a filter kills with SIGSYS"+whole)
	case !a.denied():
		return undecided(o, a)
	case a.is(unix.ENOSPC) && !p.host.UserNamespacesOff():
		return outcome(Undecided, Passes, "there are as many user namespaces as there may be, or more processes than may be")
	case a.is(unix.ENOSPC):
		return outcome(Closed, Passes, "user.max_user_namespaces is 0")
	case a.is(unix.EINVAL) && !p.host.HasUserNamespaces():
		return outcome(Absent, Uncertain, "this kernel has no user namespaces, as far as can be seen")
	case a.is(unix.EINVAL), a.is(unix.ENOSYS), t.gate.String() == a.String():
		return outcome(Closed, Denies, "a filter answers "+a.String()+whole)
	case t.gate.is(unix.EINVAL) && (a.is(unix.EPERM) || a.is(unix.EACCES)):
		return outcome(Closed, Passes, "denied behind the filters: by a sysctl (kernel.unprivileged_userns_clone), a changed root, or an LSM")
	}
	return undecided(o, a)
}

// namespace puts a question about user namespaces. Whatever is made ends at
// once.
func (q ask) namespace(e entry) answer {
	n := numbersOf(e.ABI)
	switch q.Op {
	case opUnshare: // a process with threads may not
		return inChild(plainFork(), e.raw(n.unshare, uintptr(q.Flags)))
	case opClone3:
		const size = 64 // CLONE_ARGS_SIZE_VER0
		clear(e.page[:size])
		binary.NativeEndian.PutUint64(e.page[0:], q.Flags)
		binary.NativeEndian.PutUint64(e.page[32:], uint64(unix.SIGCHLD))
		return inChild(e.raw(n.clone3, e.address(0), size))
	}
	return inChild(e.clone(n.clone, uintptr(q.Flags)|uintptr(unix.SIGCHLD)))
}

func (e entry) clone(nr uint32, flags uintptr) raw {
	args := [6]uintptr{}
	args[e.CloneFlags()] = flags
	return e.raw(nr, args[:]...)
}

// plainFork makes a child that is this thread alone.
func plainFork() raw {
	own := machine(runtime.GOARCH)[0]
	return entry{ABI: own, call: direct}.clone(unix.SYS_CLONE, uintptr(unix.SIGCHLD))
}

// raw is a system call that is yet to be made.
type raw struct {
	call invoke
	nr   uintptr
	args [6]uintptr
}

func (e entry) raw(nr uint32, args ...uintptr) raw {
	r := raw{call: e.call, nr: uintptr(e.Bit | nr)}
	copy(r.args[:], args)
	return r
}

// inChild forks, has the child make calls and end with the errno of the last,
// and waits.
func inChild(fork raw, do ...raw) answer {
	pid, errno := forkInto(&fork, do)
	if errno != 0 {
		return answer{Errno: errno}
	}
	return awaited(int(pid))
}

// forkInto returns in the parent alone. The child has one thread, and no
// scheduler to go to: nothing here may ask for more stack, which is where
// goroutines are preempted.
//
//go:nosplit
//go:norace
func forkInto(fork *raw, do []raw) (pid uintptr, errno unix.Errno) {
	pid, errno = fork.call(fork.nr, fork.args)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	code := uintptr(0)
	for i := range do {
		if _, errno := do[i].call(do[i].nr, do[i].args); errno != 0 {
			code = uintptr(errno)
			if i < len(do)-1 {
				code = uintptr(noGate)
			}
			break
		}
	}
	for {
		direct(unix.SYS_EXIT_GROUP, [6]uintptr{code})
	}
}

// noGate is the end of a child that could not prepare its call: no errno, and no
// denial of the call.
const noGate unix.Errno = 255

// awaited returns how a child ended. One that does not end is killed.
func awaited(pid int) answer {
	const patience = 5 * time.Second
	for begun, pause := time.Now(), 50*time.Microsecond; time.Since(begun) < patience; pause = min(2*pause, 10*time.Millisecond) {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); {
		case err != nil && err != unix.EINTR:
			return answer{Errno: err.(unix.Errno), Stage: stageMap}
		case got != pid:
			time.Sleep(pause)
			continue
		case status.Signaled():
			return answer{Signal: unix.SignalName(status.Signal())}
		case status.ExitStatus() == 0:
			return answer{OK: true}
		}
		return answer{Errno: unix.Errno(status.ExitStatus())}
	}
	unix.Kill(pid, unix.SIGKILL)
	unix.Wait4(pid, nil, 0, nil)
	return answer{Hung: true}
}
