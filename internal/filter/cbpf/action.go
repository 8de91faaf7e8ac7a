package cbpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Action is the return value of a filter: an action in the upper 16 bits, its
// data in the lower.
type Action uint32

// Kind is an action without its data. A smaller kind takes precedence when
// several filters are stacked.
type Kind int

const (
	KillProcess Kind = iota
	KillThread
	Trap
	Errno
	UserNotif
	Trace
	Log
	Allow
	NumKinds = iota
)

// kinds has the kernel's value and name of each kind, and how much of the data
// the kernel uses.
var kinds = [NumKinds]struct {
	value   Action
	name    string
	maxData uint32
}{
	KillProcess: {unix.SECCOMP_RET_KILL_PROCESS, "KILL_PROCESS", 0},
	KillThread:  {unix.SECCOMP_RET_KILL_THREAD, "KILL_THREAD", 0},
	Trap:        {unix.SECCOMP_RET_TRAP, "TRAP", 0xffff},    // si_errno
	Errno:       {unix.SECCOMP_RET_ERRNO, "ERRNO", 4095},    // capped at MAX_ERRNO
	UserNotif:   {unix.SECCOMP_RET_USER_NOTIF, "NOTIFY", 0}, // the listener does not see it
	Trace:       {unix.SECCOMP_RET_TRACE, "TRACE", 0xffff},  // PTRACE_GETEVENTMSG
	Log:         {unix.SECCOMP_RET_LOG, "LOG", 0},
	Allow:       {unix.SECCOMP_RET_ALLOW, "ALLOW", 0},
}

func (k Kind) String() string {
	if k < 0 || k >= NumKinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kinds[k].name
}

// value returns the kind's action without data.
func (k Kind) value() Action { return kinds[k].value }

// Kind returns what the kernel does. An unknown action kills the process.
func (a Action) Kind() Kind {
	for k, kind := range kinds {
		if a.full() == kind.value {
			return Kind(k)
		}
	}
	return KillProcess
}

// full is the action without its data.
func (a Action) full() Action { return a & unix.SECCOMP_RET_ACTION_FULL }

// Data is the lower 16 bits.
func (a Action) Data() uint32 { return uint32(a) & unix.SECCOMP_RET_DATA }

// Effective returns the canonical form of all actions that the kernel treats
// alike: ignored data becomes 0, an errno is capped, an unknown action becomes
// KILL_PROCESS.
func (a Action) Effective() Action {
	kind := kinds[a.Kind()]
	return kind.value | Action(min(a.Data(), kind.maxData))
}

// String writes the effective action, with its data where it matters.
func (a Action) String() string {
	e := a.Effective()
	switch {
	case e == KillProcess.value() && a.full() != e:
		return fmt.Sprintf("KILL_PROCESS(unknown action %#08x)", uint32(a))
	case e.Kind() == Errno || e.Data() != 0:
		return fmt.Sprintf("%s(%d)", e.Kind(), e.Data())
	}
	return e.Kind().String()
}

// beats reports whether a, returned by an older filter, replaces b, returned by
// a newer one: seccomp_run_filters compares the actions as signed numbers and
// keeps the newest filter's on a tie.
func (a Action) beats(b Action) bool {
	return int32(a.full()) < int32(b.full())
}
