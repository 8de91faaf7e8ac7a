// Package live reads the seccomp filters of running processes out of the
// kernel.
//
// A filter is read with PTRACE_SECCOMP_GET_FILTER, which needs CAP_SYS_ADMIN
// in the initial user namespace, and a caller that is itself under no filter.
// The kernel gives it out only while the thread is stopped, so each thread
// under a filter is stopped for some microseconds, one at a time: some calls
// that it sleeps in, such as epoll_wait, return EINTR for that. A thread
// without a filter is not touched; /proc tells.
//
// Nothing stays stopped. The kernel detaches from all threads when the
// tracing thread ends, for whatever reason.
//
// Threads and processes that the pid namespace of the caller does not have are
// not seen.
package live

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// Mode is how seccomp treats a thread (linux/seccomp.h).
type Mode int

const (
	Disabled Mode = iota // every call is allowed
	Strict               // read, write, exit and sigreturn are
	Filtered             // the filters decide
)

func (m Mode) String() string {
	if m < Disabled || m > Filtered {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return [...]string{"no filter", "strict mode", "filtered"}[m]
}

// Stack is what decides about a thread's calls.
type Stack struct {
	Mode Mode
	// Filter holds the programs, the oldest first, as they were installed. It
	// is empty if the mode is Disabled, and does what the kernel does if it
	// is Strict.
	Filter bpf.Filter
	// ID is the same for two stacks that hold the same programs in the same
	// order, and for no others.
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

func newStack(mode Mode, f bpf.Filter) *Stack {
	h := sha256.New()
	fmt.Fprintln(h, mode)
	for _, p := range f {
		fmt.Fprintln(h, len(p))
		h.Write(p.Bytes(bpf.Little))
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
	Command string // the name that the kernel has for it, at most 15 bytes
	Threads []Thread
}

// Group is the threads of a process under one stack.
type Group struct {
	Stack *Stack
	TIDs  []int
}

// Groups lists the distinct stacks of the process, in the order of the
// threads.
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

// HostError says why this host, or this caller on it, cannot tell. Any other
// error is about the process that was named.
type HostError struct {
	Err error
	// General says that it holds for every process under a filter.
	General bool
}

func (e *HostError) Error() string { return e.Err.Error() }
func (e *HostError) Unwrap() error { return e.Err }

func hostErrorf(format string, args ...any) error {
	return &HostError{Err: fmt.Errorf(format, args...)}
}

func generalErrorf(format string, args ...any) error {
	return &HostError{Err: fmt.Errorf(format, args...), General: true}
}

// Read reads the filters of every thread of a process. The error is a
// *HostError if the host cannot do it.
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

// errGone says that a thread ended. It is an error only if none is left.
var errGone = errors.New("there is no such process any more")

// reader reads processes one after the other.
type reader struct {
	stacks  map[string]*Stack // by ID
	buffer  []unix.SockFilter // for one program
	allowed error             // why the kernel would not tell, if asked
	patience
}

func newReader() *reader {
	r := &reader{
		stacks:   map[string]*Stack{},
		buffer:   make([]unix.SockFilter, bpf.MaxInstructions),
		patience: patience{spin: 200 * time.Microsecond, total: 2 * time.Second},
	}
	r.allowed = mayAsk()
	return r
}

// process reads the threads until it has met every one: what a thread creates
// while others are asked inherits the filters that it has at that time.
func (r *reader) process(pid int) (Process, error) {
	s, err := readStatus(procPath(pid))
	if err != nil {
		return Process{}, err
	}
	if err := s.usable(pid); err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Command: s.name}
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
	case s.mode != Filtered:
		return r.share(s.mode, strictFilter(s.mode)), nil
	case r.allowed != nil:
		return nil, r.allowed
	}
	var f bpf.Filter
	err = r.whileStopped(tid, func() error {
		f, err = r.filters(taskPath(pid, tid), tid)
		return err
	})
	if err != nil {
		return nil, explain(pid, tid, err)
	}
	return r.share(Filtered, f), nil
}

// share makes one stack of those that are the same.
func (r *reader) share(mode Mode, f bpf.Filter) *Stack {
	s := newStack(mode, f)
	if known, ok := r.stacks[s.ID]; ok {
		return known
	}
	r.stacks[s.ID] = s
	return s
}

// threads lists the thread ids of a process.
func threads(pid int) ([]int, error) {
	tids, err := numbers(procPath(pid) + "/task")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	return tids, err
}

// numbers lists the entries of a directory that are numbers, sorted.
func numbers(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}
