// Package live reads the seccomp filters of running processes from the kernel.
//
// It reads a filter with PTRACE_SECCOMP_GET_FILTER. The call needs
// CAP_SYS_ADMIN in the initial user namespace, and a caller that is itself
// under no filter. The kernel returns a filter only while its thread is
// stopped, so each thread under a filter is stopped for some microseconds, one
// at a time. Some calls that it sleeps in, such as epoll_wait, then return
// EINTR. A thread without a filter, which /proc shows, is not touched.
//
// Nothing stays stopped. The kernel detaches from all threads when the tracing
// thread ends, for whatever reason.
//
// The package does not see threads and processes outside the caller's PID
// namespace.
package live

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// Mode is how seccomp treats a thread (linux/seccomp.h).
type Mode int

const (
	Disabled Mode = iota // every call is allowed
	Strict               // only read, write, exit and sigreturn are
	Filtered             // the filters decide
)

func (m Mode) String() string {
	if m < Disabled || m > Filtered {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return [...]string{"no filter", "strict mode", "filtered"}[m]
}

// Stack decides about a thread's calls.
type Stack struct {
	Mode Mode
	// Filter holds the programs, the oldest first, as they were installed. It
	// is empty if the mode is Disabled. If the mode is Strict, it does what the
	// kernel does.
	Filter cbpf.Filter
	// ID is the same for two stacks with the same programs in the same order,
	// and differs for all others.
	ID string
}

// Instructions is the length of all programs together.
func (s *Stack) Instructions() int {
	n := 0
	for _, p := range s.Filter {
		n += len(p)
	}
	return n
}

func newStack(mode Mode, f cbpf.Filter) *Stack {
	h := sha256.New()
	fmt.Fprintln(h, mode)
	for _, p := range f {
		fmt.Fprintln(h, len(p))
		h.Write(p.Bytes(cbpf.Little))
	}
	return &Stack{mode, f, hex.EncodeToString(h.Sum(nil))}
}

// Thread is a thread and its filters. Threads under the same filters share a
// Stack.
type Thread struct {
	TID   int
	Stack *Stack
}

// Process is a process and all of its threads, the first one first.
type Process struct {
	PID     int
	Command string // the kernel's name for it, at most 15 bytes
	Threads []Thread
}

// Group holds the threads of a process under one stack.
type Group struct {
	Stack *Stack
	TIDs  []int
}

// Groups lists the distinct stacks of the process, in the order of the threads.
func (p Process) Groups() []Group {
	var groups []Group
	for _, t := range p.Threads {
		i := slices.IndexFunc(groups, func(g Group) bool { return g.Stack.ID == t.Stack.ID })
		if i < 0 {
			i, groups = len(groups), append(groups, Group{Stack: t.Stack})
		}
		groups[i].TIDs = append(groups[i].TIDs, t.TID)
	}
	return groups
}

// generalError is a *hosterr.Error that holds for every process under a filter.
type generalError struct{ error }

func (e *generalError) Unwrap() error { return e.error }

func generalErrorf(format string, args ...any) error {
	return &generalError{hosterr.Errorf(format, args...)}
}

// Read reads the filters of every thread of a process. The error is a
// *hosterr.Error if this host, or this caller on it, cannot; any other is about
// the process.
func Read(pid int) (Process, error) {
	r := newReader()
	var p Process
	var err error
	onThread(func() { p, err = r.process(pid) })
	if err != nil {
		return Process{}, fmt.Errorf("read the filters of process %d: %w", pid, err)
	}
	return p, nil
}

// errGone means that a thread ended. It is an error only if none is left.
var errGone = errors.New("there is no such process any more")

// reader reads processes one after the other.
type reader struct {
	stacks  map[string]*Stack // by ID
	buffer  []unix.SockFilter // for one program
	allowed error             // why the kernel would refuse to answer
	visible bool              // go on where it does
	patience
}

func newReader() *reader {
	r := &reader{
		stacks:   map[string]*Stack{},
		buffer:   make([]unix.SockFilter, cbpf.MaxInstructions),
		patience: patience{spin: 200 * time.Microsecond, total: 2 * time.Second},
	}
	r.allowed = mayAsk()
	return r
}

// process reads the threads until it has met every one: a thread created
// meanwhile inherits its creator's filters at that time.
func (r *reader) process(pid int) (Process, error) {
	s, err := readStatus(procPath(pid))
	if err != nil {
		return Process{}, err
	}
	if err := s.usable(pid); err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Command: string(s.Name)}
	for asked := map[int]bool{}; ; {
		tids, err := threads(pid)
		if err != nil {
			return Process{}, err
		}
		before := len(asked)
		for _, tid := range tids {
			if asked[tid] {
				continue
			}
			asked[tid] = true
			stack, err := r.thread(pid, tid)
			if errors.Is(err, errGone) {
				continue
			}
			if err != nil {
				return Process{}, fmt.Errorf("thread %d: %w", tid, err)
			}
			p.Threads = append(p.Threads, Thread{tid, stack})
		}
		if len(asked) == before {
			break
		}
	}
	if len(p.Threads) == 0 {
		return Process{}, fmt.Errorf("%w: it ended while it was asked", errGone)
	}
	return p, nil
}

func (r *reader) thread(pid, tid int) (*Stack, error) {
	s, err := readStatus(taskPath(pid, tid))
	switch {
	case err != nil:
		return nil, err
	case s.ended():
		return nil, errGone
	case s.mode() != Filtered:
		return r.share(s.mode(), strictFilter(s.mode())), nil
	case r.allowed != nil:
		return nil, r.allowed
	}
	var f cbpf.Filter
	err = r.whileStopped(tid, func() error {
		f, err = r.filters(taskPath(pid, tid), tid)
		return err
	})
	if err != nil {
		return nil, explain(pid, tid, err)
	}
	return r.share(Filtered, f), nil
}

// share returns one stack for all equal ones.
func (r *reader) share(mode Mode, f cbpf.Filter) *Stack {
	s := newStack(mode, f)
	if known, ok := r.stacks[s.ID]; ok {
		return known
	}
	r.stacks[s.ID] = s
	return s
}

// threads lists the thread ids of a process.
func threads(pid int) ([]int, error) {
	tids, err := proc.Numbers(procPath(pid) + "/task")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	return tids, err
}
