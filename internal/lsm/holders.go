package lsm

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// endsWithin is how long a process that was killed may take to end, in
// milliseconds. One that hangs in the kernel does not end.
const endsWithin = 10_000

// EndHolders kills the processes that hold operation sockets from before the
// load, since the kernel asks about those no more. It returns what they held.
func EndHolders() (ended []Socket, err error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	m, err := openPinned()
	if err != nil {
		return nil, err
	}
	defer m.close()
	return endHolders(func() ([]Socket, error) { return oldSockets(m["marks"]) })
}

// endHolders opens the processes first, and lists what they hold again: another
// process that got the number of one meanwhile is not killed.
func endHolders(list func() ([]Socket, error)) (ended []Socket, err error) {
	before, err := list()
	if err != nil {
		return nil, err
	}
	processes := map[int]int{} // to descriptors
	defer func() {
		for _, fd := range processes {
			unix.Close(fd)
		}
	}()
	for _, s := range before {
		if _, open := processes[s.PID]; open || !s.Operation {
			continue
		}
		fd, err := unix.PidfdOpen(s.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, hosterr.Errorf("open the process %d: %w", s.PID, err)
		}
		processes[s.PID] = fd
	}
	now, err := list()
	if err != nil {
		return nil, err
	}
	var problems []error
	tried := map[int]error{}
	for _, s := range now {
		fd, open := processes[s.PID]
		if !s.Operation || !open {
			continue
		}
		if _, done := tried[s.PID]; !done {
			tried[s.PID] = end(s.PID, fd)
			problems = append(problems, tried[s.PID])
		}
		if tried[s.PID] == nil {
			ended = append(ended, s)
		}
	}
	return slices.Clip(ended), errors.Join(problems...)
}

func end(pid, fd int) error {
	if pid == 1 || pid == os.Getpid() {
		return hosterr.Errorf("process %d holds an operation socket from before the load, and cannot be ended: start the machine again, with the policy loaded at boot", pid)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return hosterr.Errorf("end the process %d: %w", pid, err)
	}
	ends := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		switch n, err := unix.Poll(ends, endsWithin); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the process %d: %w", pid, err)
		case n == 0:
			return hosterr.Errorf("process %d was killed, and does not end: it hangs in the kernel", pid)
		default:
			return nil
		}
	}
}
