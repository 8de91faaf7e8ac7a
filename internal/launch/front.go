package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Helper is work that the broker must not do. It gets one end of a socket pair,
// of which the broker has the other, and runs until that closes.
type Helper func(socket int) error

// Front makes this process the front of a command. args, with the numbers of
// some descriptors behind them, make this binary call Guard. Front returns the
// command's exit status, or 128 + n if signal n ended it. If the broker could
// not start the command, it has said why, and Front returns its status.
func Front(o Order, args []string) (status int, err error) {
	f := &front{command: -1, started: make(chan struct{}), heard: make(chan struct{}, 1), witnessed: map[uint32][]time.Time{}}
	signals := catch()
	if err := errors.Join(hide(), adopt()); err != nil {
		return 0, err
	}
	if err := f.start(o, args); err != nil {
		return 0, hosterr.Errorf("start the broker: %w", err)
	}
	if err := letGo(); err != nil {
		return 0, err
	}
	go f.passSignals(signals)
	return f.listen()
}

type front struct {
	control control
	guard   int // its PID
	command int // a pidfd; -1 before it runs
	started chan struct{}
	heard   chan struct{} // the broker has reported the signals so far

	mu        sync.Mutex
	witnessed map[uint32][]time.Time // times at which the broker got a signal, by number
}

func (f *front) start(o Order, args []string) error {
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
	numbers, release, err := passOn(int(order.Fd()), int(theirs))
	if err != nil {
		return err
	}
	defer release()
	argv := append(append([]string{os.Args[0]}, args...), numbers...)
	f.control = mine
	f.guard, err = forkExec(self, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	return err
}

// listen follows the command until it ends.
func (f *front) listen() (int, error) {
	for {
		m, fd, err := f.control.receive()
		if err != nil {
			return 0, hosterr.Errorf("hear from the broker: %w", err)
		}
		switch m.kind {
		case kindStarted:
			f.command = fd
			close(f.started)
		case kindStopped:
			// The shell sees the job stop. It goes on by SIGCONT.
			unix.Kill(unix.Getpid(), unix.SIGSTOP)
		case kindSignal:
			f.witnessNow(m.value)
		case kindHeard:
			select {
			case f.heard <- struct{}{}:
			default: // nobody waits any more
			}
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

// brokerEnded distinguishes a broker that gave up before the command ran, and
// said why, from one that was killed. The guard ends as the broker did.
func (f *front) brokerEnded() (int, error) {
	w, err := waitFor(f.guard)
	if err != nil {
		return 0, hosterr.Errorf("wait for the broker: %w", err)
	}
	// Before the broker catches signals, one from the terminal ends it.
	if f.command < 0 && exitStatus(w) != 0 && exitStatus(w) != 128+int(unix.SIGKILL) {
		return exitStatus(w), nil
	}
	how := fmt.Sprintf("exit status %d", w.ExitStatus())
	if w.Signaled() {
		how = w.Signal().String()
	}
	endTree()
	return 0, hosterr.Errorf("the broker has ended (%s), and nothing can decide about AF_ALG any more: the command and all that it started were killed", how)
}

// A signal from the terminal, or to the process group, reaches the command by
// itself; passed on it would come twice. The broker is in the same group, and
// reports its signals. On a busy machine its report comes late. So the front
// asks first, and waits as long as the broker did not run.
const (
	witnessTime = 100 * time.Millisecond // for the broker to report
	pollTime    = 2 * time.Millisecond
	answerTime  = 5 * time.Second // without an answer the signal is passed on
	lateTime    = 2 * time.Second // this process, too, may not run for a while
)

// passSignals sends the command the signals that were sent to this process
// alone, in order. Signals wait until the command runs.
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
	f.ask()
	for range witnessTime / pollTime {
		if f.witness(number, at) {
			return true
		}
		time.Sleep(pollTime)
	}
	return f.witness(number, at) // this process may have stopped meanwhile
}

// ask waits until the broker has reported the signals that it got so far.
func (f *front) ask() {
	select {
	case <-f.heard: // a late answer to an earlier question
	default:
	}
	if f.control.send(message{kind: kindHeard}) != nil {
		return
	}
	select {
	case <-f.heard:
	case <-time.After(answerTime):
	}
}

// witnessNow notes a signal that the command got without us.
func (f *front) witnessNow(number uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.witnessed[number] = append(f.witnessed[number], time.Now())
}

// witness uses up one signal that the broker reported, unless it came long
// before.
func (f *front) witness(number uint32, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.witnessed[number]
	for len(seen) > 0 && at.Sub(seen[0]) > lateTime {
		seen = seen[1:]
	}
	found := len(seen) > 0
	if found {
		seen = seen[1:]
	}
	f.witnessed[number] = seen
	return found
}
