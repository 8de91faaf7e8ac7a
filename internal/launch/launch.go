// Package launch starts a command under a filter with a supervisor, and lets
// nobody notice: its terminal, its signals, its descriptors and its exit status
// are those of a command that was started directly.
//
// Two processes of this binary take part besides the command:
//
//	front    the process that the user started. It passes signals on, and
//	         leaves with the command's status. If the broker dies, it ends
//	         the tree.
//	broker   answers what the filter traps. It is the parent of the command
//	         and adopts its orphans, so that Yama lets it read their memory.
//	         If the front is killed, it ends the tree. What the command leaves
//	         behind in the background it serves on, unwatched.
//
// The filter is loaded by one thread of the broker, and inherited by the
// command that this thread starts.
//
// Front and broker are not dumpable: nobody of the same user can read them or
// take their descriptors. Root could with CAP_SYS_PTRACE: the command loses
// that capability.
package launch

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Order is what to start, handed to the broker in a memory file.
type Order struct {
	Command []string          // as the user gave it
	Filter  []unix.SockFilter // for the command
	Details []byte            // for the broker; this package does not look at it
}

// HostError says what this host cannot do, or that a part of the machinery was
// killed.
type HostError struct{ err error }

func (e *HostError) Error() string { return e.err.Error() }
func (e *HostError) Unwrap() error { return e.err }

func hostErrorf(format string, args ...any) error { return &HostError{fmt.Errorf(format, args...)} }

// CommandError is why there is no command, or no result of it; an exit status
// goes with it.
type CommandError struct {
	Status int
	text   string
}

func (e *CommandError) Error() string { return e.text }

// self is this binary, even if its file was replaced.
const self = "/proc/self/exe"

// store writes the order to memory. Not as JSON: arguments are bytes, and need
// be no UTF-8.
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

// catch has signals that would end or stop this process delivered to a channel
// instead. Those that stop and kill at once, that are about this process's own
// doing, and that the Go runtime uses for itself are not among them. In the
// command, which is executed, they have their default action again; ignoring
// them would be inherited.
func catch() <-chan os.Signal {
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

// hide keeps other processes of the same user out of this one.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return hostErrorf("become undumpable: %w", err)
	}
	return nil
}

// adopt makes this process the parent of the orphans below it.
func adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return hostErrorf("become the parent of orphans: %w", err)
	}
	return nil
}
