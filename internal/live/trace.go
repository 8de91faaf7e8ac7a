package live

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// onThread runs f on an operating system thread that ends with it. ptrace
// belongs to the thread that called it, and the end of that thread releases
// everything that f left behind.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // Go never ends the first thread
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// errRefused is the kernel's answer for many reasons: see explain.
var errRefused = errors.New("the kernel refused to trace it")

// patience is how long a thread gets to stop. One that waits for a disk, or for
// a child by vfork, stops only afterwards.
type patience struct {
	spin  time.Duration // without sleeping
	total time.Duration
}

// whileStopped stops a thread, calls f, and lets the thread go on in its former
// state: a pending signal is delivered, and a process stopped by a signal stays
// stopped. It must run by onThread.
func (p patience) whileStopped(tid int, f func() error) error {
	// PTRACE_ATTACH would send a signal. PTRACE_O_EXITKILL is left out, so that
	// the thread survives this program.
	if err := ptrace(unix.PTRACE_SEIZE, tid, 0, 0); err != nil {
		return attachError(err)
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil {
		return attachError(err)
	}
	status, err := p.wait(tid)
	if err != nil {
		return err
	}
	err = f()
	signal := uintptr(0)
	if status>>16 == 0 { // no event of ptrace: on its way to a signal
		signal = uintptr(status.StopSignal())
	}
	if detachErr := ptrace(unix.PTRACE_DETACH, tid, 0, signal); detachErr == unix.ESRCH {
		// It was killed. Its parent learns that after we have.
		_, err = p.wait(tid)
		return errors.Join(err, errGone)
	} else if detachErr != nil {
		return errors.Join(err, fmt.Errorf("let it go on: %w", detachErr))
	}
	return err
}

func attachError(err error) error {
	if err == unix.ESRCH {
		return errGone
	}
	if err == unix.EPERM || err == unix.EACCES {
		return errRefused
	}
	return hosterr.Errorf("trace it: %w", err)
}

// wait returns when the thread has stopped, or fails with errGone.
func (p patience) wait(tid int) (unix.WaitStatus, error) {
	for start := time.Now(); ; {
		var status unix.WaitStatus
		got, err := unix.Wait4(tid, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err == unix.ECHILD || got == tid && !status.Stopped():
			return status, errGone
		case err != nil:
			return status, hosterr.Errorf("wait for it to stop: %w", err)
		case got == tid:
			return status, nil
		}
		switch waited := time.Since(start); {
		case waited > p.total:
			return status, hosterr.Errorf("it did not stop within %v: it is in an uninterruptible call (a disk, a vfork); try again later", p.total)
		case waited > p.spin:
			time.Sleep(p.spin)
		default:
			runtime.Gosched()
		}
	}
}

// filters reads the programs of a stopped thread, the oldest first.
func (r *reader) filters(dir string, tid int) (cbpf.Filter, error) {
	s, err := readStatus(dir)
	if err != nil {
		return nil, err
	}
	var f cbpf.Filter
	for {
		n, err := r.program(tid, len(f))
		if err == unix.ENOENT {
			break
		}
		if err != nil {
			return nil, filterError(err)
		}
		p := cbpf.Program(slices.Clone(r.buffer[:n]))
		if err := p.Check(); err != nil {
			return nil, hosterr.Errorf("filter %d, as the kernel tells it: %w", len(f)+1, err)
		}
		f = append(f, p)
	}
	if len(f) == 0 || s.Filters >= 0 && s.Filters != len(f) {
		return nil, hosterr.Errorf("the kernel counts %d filters and shows %d", s.Filters, len(f))
	}
	return f, nil
}

// program reads one program into the buffer and returns its length.
func (r *reader) program(tid, index int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(tid),
		uintptr(index), uintptr(unsafe.Pointer(&r.buffer[0])), 0, 0)
	runtime.KeepAlive(r.buffer)
	if errno != 0 {
		return 0, errno
	}
	if int(n) > len(r.buffer) {
		return 0, unix.EOVERFLOW
	}
	return int(n), nil
}

// filterError explains an error of PTRACE_SECCOMP_GET_FILTER.
func filterError(err error) error {
	switch err {
	case unix.EACCES:
		return generalErrorf("%w", errContained)
	case unix.EINVAL, unix.EIO:
		return generalErrorf("this kernel cannot show filters: it takes CONFIG_CHECKPOINT_RESTORE (Linux 4.4)")
	case unix.EMEDIUMTYPE:
		return hosterr.Errorf("one of its filters is not classic BPF")
	case unix.ESRCH:
		return errGone
	}
	return hosterr.Errorf("ask for a filter: %w", err)
}

func ptrace(request, tid int, addr, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
