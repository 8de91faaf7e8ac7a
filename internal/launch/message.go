package launch

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// kind is the kind of a message from the broker to the front; kindHeard goes
// both ways.
type kind byte

const (
	kindStarted kind = 's' // the command runs; a pidfd of it comes along
	kindStopped kind = 'p' // it was stopped by a signal
	kindEnded   kind = 'e' // it ended, with that wait status
	kindSignal  kind = 'g' // the broker got that signal
	kindFailed  kind = 'f' // something failed, for that exit status and text
	kindHeard   kind = 'h' // from the front: report the signals so far; from the broker: done
)

// message is sent over a control socket.
type message struct {
	kind  kind
	value uint32
	text  string
}

const maxMessage = 4096

// control is one end of a socket between two of the processes.
type control int

// newControl makes a pair. Neither end survives execve.
func newControl() (mine, theirs control, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return control(ends[0]), control(ends[1]), err
}

func (c control) send(m message, fds ...int) error {
	text := binary.NativeEndian.AppendUint32([]byte{byte(m.kind)}, m.value)
	text = append(text, m.text[:min(len(m.text), maxMessage-len(text))]...)
	return notify.SendFDs(int(c), text, fds...)
}

// receive waits for a message with at most one descriptor; fd is -1 without
// one. Once the other side has ended, the kind is 0.
func (c control) receive() (m message, fd int, err error) {
	buf := make([]byte, maxMessage)
	n, fds, err := notify.ReceiveFDs(int(c), buf, 1)
	switch {
	case err == unix.ECONNRESET || err == nil && n == 0:
		return message{}, -1, nil
	case err != nil:
		return message{}, -1, err
	case n < 5:
		notify.CloseAll(fds)
		return message{}, -1, fmt.Errorf("a message of %d bytes", n)
	}
	fd = -1
	if len(fds) > 0 {
		fd = fds[0]
	}
	return message{kind(buf[0]), binary.NativeEndian.Uint32(buf[1:]), string(buf[5:n])}, fd, nil
}

func (c control) close() { unix.Close(int(c)) }

// lowest is the lowest number for our own descriptors while they are passed on:
// lower ones are likely to be the command's.
const lowest = 64

// passOn gives descriptors numbers that survive execve, high enough not to meet
// the command's. The numbers are for the command line; release closes the
// descriptors here.
func passOn(fds ...int) (numbers []string, release func(), err error) {
	var copies []int
	for _, fd := range fds {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, lowest)
		if err != nil {
			notify.CloseAll(copies)
			return nil, nil, err
		}
		copies = append(copies, n)
		numbers = append(numbers, strconv.Itoa(n))
	}
	return numbers, func() { notify.CloseAll(copies) }, nil
}

// letGo closes the command's descriptors in this process, so that a process
// waiting for the command to close them does not wait for us. Descriptors that
// survive execve were inherited; those of the Go runtime do not survive it.
// Standard error stays, for messages.
func letGo() error {
	if err := nullify(0, 1); err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return hosterr.Errorf("let go of descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// nullify replaces descriptors by /dev/null.
func nullify(fds ...int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return hosterr.Errorf("open %s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	for _, fd := range fds {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return hosterr.Errorf("let go of descriptor %d: %w", fd, err)
		}
	}
	return nil
}
