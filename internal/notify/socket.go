package notify

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MaxFDs is the largest number of descriptors in one message (SCM_MAX_FD).
const MaxFDs = 253

// SendFDs sends a message with descriptors over a Unix socket. It refuses an
// empty message, which carries none on a stream.
func SendFDs(socket int, message []byte, fds ...int) error {
	if len(message) == 0 {
		return errors.New("send descriptors: an empty message")
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(socket, message, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send %d descriptors: %w", len(fds), err)
		}
		return nil
	}
}

// ReceiveFDs receives one message and at most max descriptors, which are closed
// on exec. On any error, such as more descriptors than max or a message longer
// than the buffer, it leaves none open. n is 0 for a closed peer.
func ReceiveFDs(socket int, message []byte, max int) (n int, fds []int, err error) {
	// One more has to fit, or the kernel would close it silently.
	rights := make([]byte, unix.CmsgSpace((max+1)*4))
	var used, flags int
	for {
		n, used, flags, _, err = unix.Recvmsg(socket, message, rights, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	fds, err = parseRights(rights[:used])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0 || len(fds) > max:
		err = fmt.Errorf("more than %d descriptors in a message", max)
	case n == 0 && len(fds) > 0:
		err = errors.New("descriptors with an empty message")
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("a message of more than %d bytes", len(message))
	}
	if err != nil {
		CloseAll(fds)
		return 0, nil, err
	}
	return n, fds, nil
}

func parseRights(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("read control messages: %w", err)
	}
	for i := range messages {
		some, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, some...)
		}
	}
	return fds, nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
