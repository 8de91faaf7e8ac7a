package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Service is the broker's work; this package decides when.
type Service struct {
	// Serve answers the calls of the listener until it ends.
	Serve func(l *notify.Listener) error
	// Ended is called when the command has ended, before its status is
	// reported, and again when nothing is left of the processes that it
	// started.
	Ended func() error
}

// Attached is what a broker was started with.
type Attached struct {
	Order   Order
	Helpers []int // a socket to each of the guard's helpers
	control control
	guard   control // 0 in the guard itself
	signals <-chan os.Signal
}

// Attach reads the descriptors that Front or Guard put on the command line.
func Attach(args []string) (Attached, error) {
	a := Attached{signals: catch()}
	fds, err := numbersOf(args)
	if err != nil || len(fds) < 2 {
		return a, errByRun
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if err = errors.Join(hide(), adopt()); err != nil {
		return a, err
	}
	a.control = control(fds[1])
	if len(fds) > 2 {
		a.guard, a.Helpers = control(fds[2]), fds[3:]
	}
	a.Order, err = load(fds[0])
	unix.Close(fds[0])
	return a, err
}

// Broker starts the command, and returns when nothing is left of the processes
// that it started.
func Broker(a Attached, s Service) error {
	b := &brokered{Attached: a, service: s, served: make(chan error, 1), asked: make(chan struct{})}
	ended := make(chan error, 1)
	go b.parent(ended)
	go b.tellSignals()
	front := make(chan struct{})
	go b.watchFront(front)
	guard := make(chan struct{})
	go func() {
		b.guard.receive() // its end: it says nothing meanwhile
		guard <- struct{}{}
	}()
	for {
		select {
		case err := <-b.served:
			if err != nil { // nobody answers any more
				endTree()
				return fmt.Errorf("serve the command: %w: all that it started was killed", err)
			}
		case err := <-ended:
			if err != nil {
				endTree() // it may have begun
			}
			return err
		case <-front:
			if b.over.Load() {
				continue
			}
			b.ending.Store(true)
			endTree()
			return hosterr.Errorf("the process that run began as was killed: the command and all that it started were killed")
		case <-guard:
			b.ending.Store(true)
			endTree()
			return hosterr.Errorf("the guard of the broker was killed: the command and all that it started were killed")
		}
	}
}

type brokered struct {
	Attached
	service Service
	served  chan error
	asked   chan struct{} // by the front, for the signals so far
	pid     int
	over    atomic.Bool // the command has ended: the front may go
	ending  atomic.Bool // we end it
}

// parent starts the command and is its parent. The command is killed when this
// thread ends, so the thread stays locked. It is never released, since it is
// under the filter.
func (b *brokered) parent(ended chan<- error) {
	runtime.LockOSThread()
	if err := b.start(); err != nil {
		ended <- err
		return
	}
	ended <- b.wait()
}

// start loads the filter for this thread, serves it, and starts the command.
func (b *brokered) start() error {
	path, err := lookPath(b.Order.Command[0])
	if err != nil {
		return err
	}
	if err := disarm(); err != nil {
		return hosterr.Errorf("%w", err)
	}
	fd, err := notify.Install(b.Order.Filter)
	if err != nil {
		return hosterr.Errorf("%w", err)
	}
	l, err := notify.NewListener(fd)
	if err != nil {
		return hosterr.Errorf("take over the filter's listener: %w", err)
	}
	_ = l.SetSyncWakeUp() // slower without it, before Linux 6.6
	go func() { b.served <- b.service.Serve(l) }()
	b.pid, err = forkExec(path, b.Order.Command, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return execError(path, err)
	}
	if err := letGo(); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(b.pid, 0)
	if err != nil {
		return hosterr.Errorf("watch the command: %w", err)
	}
	defer unix.Close(pidfd)
	if err := b.control.send(message{kind: kindStarted}, pidfd); err != nil {
		return hosterr.Errorf("tell that the command runs: %w", err)
	}
	return nil
}

// A shell's statuses for a command that it cannot run.
const (
	statusNotFound   = 127
	statusNotRunning = 126
	statusHost       = 3 // our own, for a host that cannot do it
)

// lookPath finds the command as a shell does, even where PATH has the current
// directory in it.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return path, nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EISDIR):
		return "", &CommandError{statusNotRunning, err.Error()}
	}
	return "", &CommandError{statusNotFound, err.Error()}
}

func execError(path string, err error) error {
	status := statusNotRunning
	if err == unix.ENOENT {
		status = statusNotFound
	}
	return &CommandError{status, fmt.Sprintf("%s: %v", path, err)}
}

// wait reaps until nothing is left, and reports the command itself to the
// front.
func (b *brokered) wait() error {
	for {
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.ECHILD:
			return b.service.Ended()
		case err != nil:
			return hosterr.Errorf("wait for the command: %w", err)
		case pid != b.pid:
			continue
		}
		if b.ending.Load() { // the command did not end by itself
			b.pid = 0
			continue
		}
		if w.Stopped() {
			b.control.send(message{kind: kindStopped})
			continue
		}
		m := message{kind: kindEnded, value: uint32(w)}
		if err := b.service.Ended(); err != nil {
			m = message{kindFailed, statusHost, err.Error()}
		}
		b.over.Store(true)
		b.control.send(m)
		b.pid = 0
		if err := nullify(2); err != nil { // somebody may wait for its end
			return err
		}
	}
}

// tellSignals is the front's witness. Only a signal that cannot be caught ends
// the broker: it ends with the processes that it serves.
func (b *brokered) tellSignals() {
	for {
		select {
		case s := <-b.signals:
			b.tell(s)
		case <-b.asked:
			for len(b.signals) > 0 {
				b.tell(<-b.signals)
			}
			b.control.send(message{kind: kindHeard})
		}
	}
}

func (b *brokered) tell(s os.Signal) {
	if number, ok := s.(syscall.Signal); ok {
		b.control.send(message{kind: kindSignal, value: uint32(number)})
	}
}

// watchFront waits for the end of the front, and takes its questions.
func (b *brokered) watchFront(gone chan<- struct{}) {
	for {
		m, _, err := b.control.receive()
		if err != nil || m.kind == 0 {
			break
		}
		if m.kind == kindHeard {
			b.asked <- struct{}{}
		}
	}
	gone <- struct{}{}
}

// disarm takes CAP_SYS_PTRACE away from this thread and the programs that it
// starts, for good: with it the command could take descriptors from the broker.
// Without the privilege to load a filter for others, and to lose capabilities
// for ever, no_new_privs does both.
func disarm() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	const admin, ptrace = 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_SYS_PTRACE // both in the first word
	privileged := caps[0].Effective&admin != 0
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0); err != nil {
		privileged = false
	}
	caps[0].Effective &^= ptrace
	caps[0].Permitted &^= ptrace
	caps[0].Inheritable &^= ptrace
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return fmt.Errorf("drop CAP_SYS_PTRACE: %w", err)
	}
	if privileged {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return nil
}
