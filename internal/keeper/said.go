package keeper

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// said is a message to a service manager, as sd_notify(3) describes it.
type said struct {
	from int // process
	text string
	fds  []int
}

const maxSaid = 64 << 10

// ear is the socket of NOTIFY_SOCKET.
type ear struct {
	fd   int
	path string
}

// openEar makes the socket beside the one for the hand-over: nobody else can reach
// it there, and a file system that is read-only elsewhere will do.
func openEar(beside string) (*ear, error) {
	e := &ear{fd: -1, path: beside + ".notify-" + strings.ToLower(rand.Text()[:6])}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	e.fd = fd
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: e.path})
	if err == nil {
		err = os.Chmod(e.path, 0o600)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("%s: %w", e.path, err)
	}
	return e, nil
}

func (e *ear) close() {
	unix.Close(e.fd)
	os.Remove(e.path)
}

// sweep removes the files of keepers that were killed.
func sweep(beside string) {
	left, _ := filepath.Glob(beside + ".notify-*")
	for _, path := range left {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.ECONNREFUSED {
			os.Remove(path)
		}
		unix.Close(fd)
	}
}

// hear receives a message. flags may be MSG_DONTWAIT. The error is the socket's, or
// the message's alone (errSaid).
func (e *ear) hear(flags int) (said, error) {
	text := make([]byte, maxSaid)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(notify.MaxFDs*4))
	n, used, got, _, err := unix.Recvmsg(e.fd, text, control, unix.MSG_CMSG_CLOEXEC|flags)
	if err != nil {
		return said{}, err
	}
	m := said{text: string(text[:n])}
	parts, err := unix.ParseSocketControlMessage(control[:used])
	for i := range parts {
		if c, wrong := unix.ParseUnixCredentials(&parts[i]); wrong == nil {
			m.from = int(c.Pid)
		} else if fds, wrong := unix.ParseUnixRights(&parts[i]); wrong == nil {
			m.fds = append(m.fds, fds...)
		}
	}
	switch {
	case err != nil:
	case got&unix.MSG_CTRUNC != 0:
		err = errors.New("more descriptors than fit")
	case got&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("more than %d bytes", maxSaid)
	default:
		return m, nil
	}
	notify.CloseAll(m.fds)
	return said{}, fmt.Errorf("%w of process %d: %w", errSaid, m.from, err)
}

var errSaid = errors.New("a message")

// values are the assignments of a message, the last of each.
func (m said) values() map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(m.text) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			values[key] = value
		}
	}
	return values
}
