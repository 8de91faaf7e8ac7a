// Package launch starts a command under a filter with a supervisor, unnoticed:
// the command has the terminal, the signals, the descriptors and the exit
// status of one that was started directly.
//
// Three processes of this binary take part besides the command, each the parent
// of the next:
//
//	front    the process that the user started. It passes signals on, and
//	         leaves with the command's status.
//	guard    stays as long as the broker. If that dies, it ends the tree. It
//	         makes the sockets that must not lead back to the broker.
//	broker   answers the calls that the filter traps. It is the parent of the
//	         command and adopts its orphans, so that Yama lets it read their
//	         memory. If the front or the guard is killed, it ends the tree. It
//	         goes on serving processes that the command leaves in the background.
//
// Each of them adopts the orphans below it, so that whichever is left finds
// them. A tree without a broker remains only if all three are killed at once. A
// PID namespace would end that too, but takes a privilege, or a user namespace
// that the command would notice; PR_SET_PDEATHSIG is not inherited. Such a tree
// gains nothing: the filter closes every call that the broker would answer, and
// lets nobody put a listener in its place.
//
// One thread of the broker loads the filter, and the command that this thread
// starts inherits it.
//
// The three are not dumpable: no process of the same user can read them or take
// their descriptors. Root could with CAP_SYS_PTRACE: the command loses that
// capability.
package launch

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Order says what to start. The broker gets it in a memory file.
type Order struct {
	Command []string          // as the user gave it
	Filter  []unix.SockFilter // for the command
	Details []byte            // for the broker; this package does not look at it
}

// CommandError says why there is no command, or no result of it, and has an
// exit status.
type CommandError struct {
	Status int
	text   string
}

func (e *CommandError) Error() string { return e.text }

// self is this binary, even if its file was replaced.
const self = "/proc/self/exe"

// store writes the order to memory. JSON would not do: arguments are bytes, and
// need not be UTF-8.
func (o Order) store() (*os.File, error) {
	fd, err := unix.MemfdCreate("afalg-policy-order", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "order")
	if err := gob.NewEncoder(f).Encode(o); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errByRun is for processes that somebody else started.
var errByRun = errors.New("this command is started by run only")

// load reads an order from its beginning.
func load(fd int) (Order, error) {
	var o Order
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return o, fmt.Errorf("%w: %w", errByRun, err)
	}
	defer f.Close()
	if err := gob.NewDecoder(f).Decode(&o); err != nil {
		return o, fmt.Errorf("%w: %w", errByRun, err)
	}
	if len(o.Command) == 0 {
		return o, errByRun
	}
	return o, nil
}

// catch delivers signals that would end or stop this process to a channel
// instead. Exceptions are those that stop and kill at once, those about this
// process's own actions, and those that the Go runtime uses itself. In the
// executed command they have their default action again; ignored ones stay
// ignored.
func catch() <-chan os.Signal {
	keepIgnored()
	var list []os.Signal
	for n := unix.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS,
			32, 33: // the C library's
		default:
			if !signal.Ignored(n) { // as the command is to have it
				list = append(list, n)
			}
		}
	}
	caught := make(chan os.Signal, 64)
	signal.Notify(caught, list...)
	return caught
}

// keepIgnored ignores again the signals that this process was started to
// ignore, so that the command ignores them too. It leaves SIGCHLD and SIGURG,
// which are needed here and which nobody gets without asking, and SIGPROF,
// which the Go runtime keeps.
func keepIgnored() {
	for _, n := range seccomp.IgnoredAtStart() {
		if n != unix.SIGCHLD && n != unix.SIGURG {
			signal.Ignore(n)
		}
	}
}

// forkExec starts a program with the signal mask with which this process was
// started.
func forkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	seccomp.WithStartMask(func() { pid, err = syscall.ForkExec(path, argv, attr) })
	return pid, err
}

// hide keeps other processes of the same user out of this one.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return hosterr.Errorf("become undumpable: %w", err)
	}
	return nil
}

// adopt makes this process the parent of the orphans below it.
func adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return hosterr.Errorf("become the parent of orphans: %w", err)
	}
	return nil
}
