package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Helper is work that must not be done by the broker. It gets one end of a
// socket pair, of which the broker has the other, and runs until that closes.
type Helper func(socket int) error

// Front makes this process the front of a command. args, with the numbers of
// some descriptors behind them, make this binary call Attach and Broker. It
// returns the command's exit status, 128 + n if signal n ended it, or the
// broker's if that could not start the command, and has said why.
func Front(o Order, args []string, helpers ...Helper) (status int, err error) {
	f := &front{command: -1, started: make(chan struct{}), witnessed: map[uint32][]time.Time{}}
	signals := catch()
	if err := errors.Join(hide(), adopt()); err != nil {
		return 0, err
	}
	if err := f.start(o, args, helpers); err != nil {
		return 0, hostErrorf("start the broker: %w", err)
	}
	if err := letGo(); err != nil {
		return 0, err
	}
	go f.passSignals(signals)
	return f.listen()
}

type front struct {
	control control
	broker  int // its PID
	command int // a pidfd; -1 before it runs
	started chan struct{}

	mu        sync.Mutex
	witnessed map[uint32][]time.Time // when the broker got a signal, by number
}

func (f *front) start(o Order, args []string, helpers []Helper) error {
	order, err := o.store()
	if err != nil {
		return err
	}
	defer order.Close()
	mine, theirs, err := newControl()
	if err != nil {
		return err
	}
	defer theirs.close()
	fds := []int{int(order.Fd()), int(theirs)}
	for _, help := range helpers {
		ours, brokers, err := newControl()
		if err != nil {
			return err
		}
		defer brokers.close()
		fds = append(fds, int(brokers))
		go help(int(ours))
	}
	numbers, release, err := passOn(fds...)
	if err != nil {
		return err
	}
	defer release()
	argv := append(append([]string{os.Args[0]}, args...), numbers...)
	f.control = mine
	f.broker, err = syscall.ForkExec(self, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	return err
}

// listen follows the command until it ends.
func (f *front) listen() (int, error) {
	for {
		m, fd, err := f.control.receive()
		if err != nil {
			return 0, hostErrorf("hear from the broker: %w", err)
		}
		switch m.kind {
		case kindStarted:
			f.command = fd
			close(f.started)
		case kindStopped:
			// So that the shell sees the job stop. It goes on by SIGCONT.
			unix.Kill(unix.Getpid(), unix.SIGSTOP)
		case kindSignal:
			f.mu.Lock()
			f.witnessed[m.value] = append(f.witnessed[m.value], time.Now())
			f.mu.Unlock()
		case kindEnded:
			return exitStatus(syscall.WaitStatus(m.value)), nil
		case kindFailed:
			return 0, &CommandError{int(m.value), m.text}
		case 0:
			return f.brokerEnded()
		}
	}
}

func exitStatus(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}

// brokerEnded tells a broker that gave up before the command ran, and said
// why, from one that was killed.
func (f *front) brokerEnded() (int, error) {
	var w syscall.WaitStatus
	for {
		_, err := syscall.Wait4(f.broker, &w, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, hostErrorf("wait for the broker: %w", err)
		}
		break
	}
	// Before it catches signals, one of the terminal ends it.
	if f.command < 0 && exitStatus(w) != 0 && exitStatus(w) != 128+int(unix.SIGKILL) {
		return exitStatus(w), nil
	}
	how := fmt.Sprintf("exit status %d", w.ExitStatus())
	if w.Signaled() {
		how = w.Signal().String()
	}
	endTree()
	return 0, hostErrorf("the broker has ended (%s), and nothing can decide about AF_ALG any more: the command and all that it started were killed", how)
}

// A signal from the terminal, or one that is sent to the process group, reaches
// the command by itself; passed on it would come twice. The broker is in the
// same group, and tells of what it gets.
const (
	witnessTime = 100 * time.Millisecond // for the broker to tell
	pollTime    = 2 * time.Millisecond
)

// passSignals sends the command what was sent to this process alone, in order.
// Until the command runs, signals wait.
func (f *front) passSignals(signals <-chan os.Signal) {
	<-f.started
	for s := range signals {
		number, ok := s.(syscall.Signal)
		if !ok || number == unix.SIGPIPE { // our own, of standard error
			continue
		}
		if !f.wasForAll(uint32(number), time.Now()) {
			unix.PidfdSendSignal(f.command, number, nil, 0)
		}
	}
}

// wasForAll does not look at the clock: this process may be stopped meanwhile.
func (f *front) wasForAll(number uint32, at time.Time) bool {
	for range witnessTime / pollTime {
		if f.witness(number, at) {
			return true
		}
		time.Sleep(pollTime)
	}
	return false
}

// witness uses up one signal that the broker told of, if it came at about the
// same time.
func (f *front) witness(number uint32, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.witnessed[number]
	for len(seen) > 0 && at.Sub(seen[0]) > witnessTime {
		seen = seen[1:]
	}
	found := len(seen) > 0
	if found {
		seen = seen[1:]
	}
	f.witnessed[number] = seen
	return found
}
