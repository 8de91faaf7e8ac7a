package launch

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Guard makes this process the guard of a broker. args are those of Attach;
// broker, with the numbers of some descriptors behind it, makes this binary
// call Attach and Broker. Guard ends as the broker does, and ends everything
// that the broker left. The helpers run here until then.
func Guard(args, broker []string, helpers ...Helper) (status int, err error) {
	a, err := Attach(args)
	if err != nil {
		return 0, err
	}
	go func() {
		for range a.signals { // the broker reports those for the group
		}
	}()
	pid, err := a.startBroker(broker, helpers)
	if err != nil {
		return 0, hosterr.Errorf("start the broker: %w", err)
	}
	if err := errors.Join(letGo(), nullify(2)); err != nil { // somebody may wait for its end
		return 0, err
	}
	w, err := waitFor(pid)
	endTree()
	if err != nil {
		return 0, hosterr.Errorf("wait for the broker: %w", err)
	}
	if w.Signaled() {
		signal.Reset()
		unix.Kill(unix.Getpid(), w.Signal())
	}
	return exitStatus(w), nil
}

// startBroker passes on the front's descriptors, with one end of a link that
// shows each of the two when the other has gone, and one for each helper.
func (a Attached) startBroker(broker []string, helpers []Helper) (int, error) {
	order, err := a.Order.store()
	if err != nil {
		return 0, err
	}
	defer order.Close()
	defer a.control.close() // otherwise the front would not see the broker's end
	fds := []int{int(order.Fd()), int(a.control)}
	work := append([]Helper{func(int) error { return nil }}, helpers...) // the link is only held
	for _, help := range work {
		ours, brokers, err := newControl()
		if err != nil {
			return 0, err
		}
		defer brokers.close()
		fds = append(fds, int(brokers))
		go help(int(ours))
	}
	numbers, release, err := passOn(fds...)
	if err != nil {
		return 0, err
	}
	defer release()
	argv := append(append([]string{os.Args[0]}, broker...), numbers...)
	return forkExec(self, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
}

// waitFor waits for the end of a child.
func waitFor(pid int) (w syscall.WaitStatus, err error) {
	for {
		if _, err = syscall.Wait4(pid, &w, 0, nil); err != syscall.EINTR {
			return w, err
		}
	}
}

// numbersOf reads descriptors from a command line.
func numbersOf(args []string) (fds []int, err error) {
	for _, arg := range args {
		fd, err := strconv.Atoi(arg)
		if err != nil {
			return nil, errByRun
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
