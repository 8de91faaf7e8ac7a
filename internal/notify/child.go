package notify

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Child is a process that makes a socket, or a pair, and nothing else. A socket
// inherits some properties of its maker for good, above all the cgroup of the
// unified hierarchy, by which networks are filtered and memory is counted. A
// thread cannot be in another cgroup than its process.
//
// The child executes nothing, and shares no memory: it is this process with one
// thread, which makes the calls below, sends the results, and waits for its
// end. Nobody but root can look into it if this process is not dumpable.
type Child struct {
	Family, Type, Protocol int
	Pair                   bool
	// Identity makes the child another user: that takes CAP_SETUID and
	// CAP_SETGID. Otherwise it has the identity of the calling thread.
	Identity bool
	UID, GID int
	Groups   []uint32
	// Caps are the capabilities of the thread that the child keeps.
	Caps [2]unix.CapUserData
}

// Started is a child at work.
type Started struct {
	PID    int
	Socket int // for its results
}

// rawCall is a system call of a child, and the place of its result.
type rawCall struct {
	number uintptr
	args   [6]uintptr
}

// result is the error of the failed call, and whether that was the last one,
// for the socket.
type result struct{ errno, last uint32 }

// errand is the work of a child. It is prepared in advance, because a child of
// a process with threads can allocate nothing.
type errand struct {
	calls   [8]rawCall
	count   int
	pair    bool
	reply   uintptr
	result  result // to send
	message unix.Msghdr
	vector  unix.Iovec
	control struct {
		unix.Cmsghdr
		fds [2]int32
	}

	header unix.CapUserHeader
	caps   [2]unix.CapUserData
	groups []uint32
}

func (e *errand) add(number uintptr, args ...uintptr) {
	c := &e.calls[e.count]
	c.number = number
	copy(c.args[:], args)
	e.count++
}

func (c Child) errand(ours, theirs int) *errand {
	e := &errand{
		pair: c.Pair, reply: uintptr(theirs), caps: c.Caps, groups: append([]uint32(nil), c.Groups...),
		header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3},
	}
	e.add(unix.SYS_CLOSE, uintptr(ours)) // so that it sees when this process ends
	if c.Identity {
		var list unsafe.Pointer
		if len(e.groups) > 0 {
			list = unsafe.Pointer(&e.groups[0])
		}
		e.add(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
		e.add(unix.SYS_SETGROUPS, uintptr(len(e.groups)), uintptr(list))
		e.add(unix.SYS_SETRESGID, uintptr(c.GID), uintptr(c.GID), uintptr(c.GID))
		e.add(unix.SYS_SETRESUID, uintptr(c.UID), uintptr(c.UID), uintptr(c.UID))
	}
	e.add(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&e.header)), uintptr(unsafe.Pointer(&e.caps[0])))
	size := 4
	if c.Pair {
		size = 8
		e.add(unix.SYS_SOCKETPAIR, uintptr(c.Family), uintptr(c.Type), uintptr(c.Protocol), uintptr(unsafe.Pointer(&e.control.fds[0])))
	} else {
		e.add(unix.SYS_SOCKET, uintptr(c.Family), uintptr(c.Type), uintptr(c.Protocol))
	}
	e.control.Level, e.control.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	e.control.SetLen(unix.CmsgLen(size))
	e.vector.Base = (*byte)(unsafe.Pointer(&e.result))
	e.vector.SetLen(int(unsafe.Sizeof(e.result)))
	e.message.Iov = &e.vector
	e.message.SetIovlen(1)
	e.message.Control = (*byte)(unsafe.Pointer(&e.control))
	e.message.SetControllen(unix.CmsgSpace(size))
	return e
}

// run is the child. It has one thread, no runtime around it, and the stack that
// it started with.
//
//go:norace
//go:nosplit
func (e *errand) run() {
	for i := 0; i < e.count; i++ {
		c := &e.calls[i]
		r, _, errno := syscall.RawSyscall6(c.number, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if errno != 0 {
			e.result.errno = uint32(errno)
			if i == e.count-1 {
				e.result.last = 1
			}
			e.message.Control = nil
			e.message.Controllen = 0
			break
		}
		if i == e.count-1 && !e.pair {
			e.control.fds[0] = int32(r)
		}
	}
	syscall.RawSyscall(unix.SYS_SENDMSG, e.reply, uintptr(unsafe.Pointer(&e.message)), unix.MSG_NOSIGNAL)
	syscall.RawSyscall(unix.SYS_READ, e.reply, uintptr(unsafe.Pointer(&e.result)), 4)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// cloneArgs is struct clone_args (linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// StartIn starts the child in the cgroup that the descriptor is the directory of.
// The calling goroutine has to hold its thread.
func (c Child) StartIn(cgroup int) (*Started, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	e := c.errand(ends[0], ends[1])
	args := &cloneArgs{flags: unix.CLONE_INTO_CGROUP, cgroup: uint64(cgroup)}
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	// No handler may run in the child: the runtime's would find no runtime.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		CloseAll(ends[:])
		return nil, err
	}
	pid, errno := e.clone(args)
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	runtime.KeepAlive(e)
	unix.Close(ends[1])
	if errno != 0 {
		unix.Close(ends[0])
		return nil, errno
	}
	return &Started{PID: pid, Socket: ends[0]}, nil
}

//go:norace
//go:nosplit
func (e *errand) clone(args *cloneArgs) (pid int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno == 0 && r == 0 {
		e.run()
	}
	return int(r), errno
}

// Receive returns the sockets, or the errno that their call failed with; an error
// of another kind is none of that call.
func (s *Started) Receive(milliseconds int) ([]int, error) {
	ready := [1]unix.PollFd{{Fd: int32(s.Socket), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready[:], milliseconds)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("process %d made no socket in %d ms", s.PID, milliseconds)
		}
		break
	}
	var r result
	n, fds, err := ReceiveFDs(s.Socket, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)), 2)
	switch {
	case err != nil:
		return nil, fmt.Errorf("hear from process %d: %v", s.PID, err)
	case n != int(unsafe.Sizeof(r)):
		CloseAll(fds)
		return nil, fmt.Errorf("process %d was ended before it made a socket", s.PID)
	case r.errno != 0 && r.last == 0:
		return nil, fmt.Errorf("process %d could not become the caller: %v", s.PID, unix.Errno(r.errno))
	case r.errno != 0:
		return nil, unix.Errno(r.errno)
	}
	return fds, nil
}

// End kills the child.
func (s *Started) End() {
	unix.Close(s.Socket)
	unix.Kill(s.PID, unix.SIGKILL)
	for {
		// It has no signal of its own for its end, so it is a clone's.
		_, err := unix.Wait4(s.PID, nil, unix.WALL, nil)
		if err != unix.EINTR {
			return
		}
	}
}
