package keeper

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// barrier is a message of the keeper to itself. Everything that its agent said
// before has been heard when it arrives.
const barrier = "BARRIER"

func (k *keeper) listenToAgent() {
	for {
		m, err := k.ear.hear(0)
		switch {
		case errors.Is(err, errSaid):
			k.refuse(err)
		case err == unix.EINTR:
		case err != nil: // out of memory, or of descriptors
			k.refuse(err)
			time.Sleep(firstDelay)
		default:
			k.said <- m
		}
	}
}

// drain hears what an agent said before it ended. Its process id is its own until
// it is reaped.
func (k *keeper) drain() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Sendto(fd, []byte(barrier), 0, &unix.SockaddrUnix{Name: k.ear.path})
		}
		if err != nil {
			k.failed("agent", fmt.Errorf("what it said last may be lost: %w", err))
			k.said <- said{from: os.Getpid(), text: barrier}
		}
	}()
	for m := range k.said {
		if m.from == os.Getpid() && m.text == barrier {
			break
		}
		k.hear(m)
	}
	<-done
}

// hear does what the agent asks for, and reports whether it serves since then.
// Nobody else is heard.
func (k *keeper) hear(m said) (serves bool) {
	if k.child == nil || m.from != k.child.pid {
		notify.CloseAll(m.fds)
		k.refuse(fmt.Errorf("process %d is not the agent, and is not heard", m.from))
		return false
	}
	v := m.values()
	name := v["FDNAME"]
	switch {
	case v["FDSTOREREMOVE"] == "1":
		notify.CloseAll(m.fds)
		k.store.forget(name)
	case v["FDSTORE"] == "1":
		if name == "" {
			name = unnamed
		}
		if err := k.store.add(name, m.fds); err != nil {
			k.failed("store", fmt.Errorf("a container will not outlive the agent: %w", err))
		}
	default:
		notify.CloseAll(m.fds)
	}
	if v["WATCHDOG"] == "1" || v["READY"] == "1" {
		k.child.heard = time.Now()
	}
	if v["READY"] == "1" && !k.child.ready {
		k.child.ready = true
		return true
	}
	return false
}

// refuse tells one refusal in a second: who is refused cannot fill the log.
func (k *keeper) refuse(err error) {
	if !k.deaf.Allow() {
		k.untold.Add(1)
		return
	}
	if n := k.untold.Swap(0); n > 0 {
		err = fmt.Errorf("%w (%d more were not told)", err, n)
	}
	k.failed("peer", err)
}
