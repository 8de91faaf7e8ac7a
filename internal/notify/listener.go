// Package notify is the supervisor's side of seccomp user notifications: a
// listener receives the calls that a filter traps, and answers them. It knows
// nothing of AF_ALG. The code that needs unsafe is here.
//
// A notification's thread stays blocked until it is answered, killed, or
// interrupted by a signal. Every answer can therefore find that nobody waits
// for it any more (ErrGone). When a listener closes, the kernel answers trapped
// calls with ENOSYS, now and later.
package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone means that the call is no longer waiting: its thread was killed, or a
// signal interrupted it. This is routine.
var ErrGone = errors.New("the call is no longer waiting")

// Data is struct seccomp_data: a filter's view of a call.
type Data struct {
	Nr   int32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// Notification is a trapped call (struct seccomp_notif).
type Notification struct {
	ID    uint64
	TID   uint32 // a thread id, as this process sees it; 0 if it sees none
	Flags uint32
	Data  Data
}

// Listener is the descriptor that the kernel returns for a filter. It can be
// polled: it is readable while a call waits, and hangs up when no process has
// the filter any more.
type Listener struct {
	fd   int
	size int // of a notification on this kernel
}

// listenerLink is the link of a listener's descriptor in /proc.
const listenerLink = "anon_inode:seccomp notify"

// NewListener takes over a descriptor, and closes it if it is no listener.
func NewListener(fd int) (*Listener, error) {
	l, err := newListener(fd)
	if err != nil {
		unix.Close(fd)
	}
	return l, err
}

func newListener(fd int) (*Listener, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at descriptor %d: %w", fd, err)
	case link != listenerLink:
		return nil, fmt.Errorf("descriptor %d is no seccomp listener but %s", fd, link)
	}
	size, err := notificationSize()
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return &Listener{fd, size}, nil
}

// notificationSize asks for the size of a notification: the kernel writes its
// own size, whatever the caller was compiled for.
func notificationSize() (int, error) {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return 0, fmt.Errorf("ask for the size of notifications (Linux 5.0): %w", errno)
	}
	return max(int(sizes.notif), int(unsafe.Sizeof(Notification{}))), nil
}

// Close ends the listener, which must not be used any more.
func (l *Listener) Close() error { return unix.Close(l.fd) }

// FD returns the descriptor, which the listener keeps.
func (l *Listener) FD() int { return l.fd }

// SetSyncWakeUp asks the kernel (6.6) to wake the supervisor on the processor
// of the caller, which then waits. That is several times faster.
func (l *Listener) SetSyncWakeUp() error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno != 0 {
		return fmt.Errorf("ask for synchronous wake-ups (Linux 6.6): %w", errno)
	}
	return nil
}

// Buffer is room for one notification, for one goroutine.
type Buffer []byte

// Buffer makes room for one notification.
func (l *Listener) Buffer() Buffer { return make(Buffer, l.size) }

// Receive takes the waiting call. The caller must know that there is one, and
// no other goroutine may receive at that time: the ioctl blocks otherwise, and
// on some kernels never returns once the last process has gone (6.1). ErrGone
// means that there was one.
func (l *Listener) Receive(b Buffer) (Notification, error) {
	clear(b) // otherwise the kernel refuses
	err := l.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&b[0]))
	switch err {
	case nil:
		return *(*Notification)(unsafe.Pointer(&b[0])), nil
	case unix.ENOENT, unix.EINTR:
		return Notification{}, ErrGone
	}
	return Notification{}, fmt.Errorf("receive a notification: %w", err)
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// Valid reports whether the call still waits. Facts read of its thread before
// then belong to that thread, and not to another one with the same number.
func (l *Listener) Valid(id uint64) bool {
	return l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// Return ends the call with a value.
func (l *Listener) Return(id uint64, value int64) error {
	return l.send(response{id: id, value: value})
}

// Fail ends the call with an error.
func (l *Listener) Fail(id uint64, errno unix.Errno) error {
	return l.send(response{id: id, err: -int32(errno)})
}

// Continue lets the kernel carry out the call, with arguments that the caller
// may have changed in memory. It is not for a call that a pointer decides.
func (l *Listener) Continue(id uint64) error {
	return l.send(response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func (l *Listener) send(r response) error {
	return gone(l.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)))
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	id       uint64
	flags    uint32
	src      uint32
	dst      uint32
	dstFlags uint32
}

// AddFD puts a copy of a descriptor into the caller's table and returns its
// number there. With answer, the call ends with that number, in one step (Linux
// 5.14). Any error but ErrGone leaves the call waiting for an answer.
//
// The ioctl waits until the caller's thread has taken the descriptor. A signal
// in between would take back the descriptor and not the answer
// (seccomp_notify_addfd in kernel/seccomp.c, up to 6.18 at least), and the Go
// runtime sends itself many: the call would return 0, which is a descriptor of
// the caller's. So signals wait.
func (l *Listener) AddFD(id uint64, fd int, cloexec, answer bool) (int, error) {
	a := addition{id: id, src: uint32(fd)}
	if cloexec {
		a.dstFlags = unix.O_CLOEXEC
	}
	if answer {
		a.flags = unix.SECCOMP_ADDFD_FLAG_SEND
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, before := ^uint64(0), uint64(0)
	mask(&all, &before)
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	mask(&before, nil)
	if errno != 0 {
		return -1, gone(errno)
	}
	return int(n), nil
}

// mask sets the signals that this thread blocks. It cannot fail.
func mask(set, old *uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(*set), 0, 0)
}

func gone(err error) error {
	if err == unix.ENOENT {
		return ErrGone
	}
	return err
}

// ioctl makes a request that does not block.
func (l *Listener) ioctl(request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
