package agent

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/listen"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// listenName is the FileDescriptorName= of the socket in the unit.
const listenName = "listen"

// socket is the one to which runtimes connect.
type socket struct {
	*net.UnixListener
	path string
	made os.FileInfo // of the file, if it was made here
}

// openSocket uses the socket that was passed in, or makes one.
func openSocket(path string, passed []int) (*socket, error) {
	switch {
	case len(passed) > 1:
		notify.CloseAll(passed)
		return nil, hosterr.Errorf("%d sockets named %q were passed in, and one is wanted", len(passed), listenName)
	case len(passed) == 1:
		return useSocket(path, passed[0])
	case path == "":
		return nil, ErrNoSocket
	}
	return makeSocket(path)
}

// ErrNoSocket means that there is nothing to listen on.
var ErrNoSocket = fmt.Errorf("no socket is named, and none named %q was passed in", listenName)

func useSocket(path string, fd int) (*socket, error) {
	l, err := listenerOf(fd)
	if err != nil {
		return nil, hosterr.Errorf("use the socket that was passed in: %w", err)
	}
	if got := l.Addr().String(); path != "" && got != path {
		l.Close()
		return nil, hosterr.Errorf("the socket that was passed in is %s, not %s", got, path)
	}
	return &socket{UnixListener: l, path: l.Addr().String()}, nil
}

// listenerOf takes over a descriptor.
func listenerOf(fd int) (*net.UnixListener, error) {
	f := os.NewFile(uintptr(fd), listenName)
	defer f.Close()
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, errors.Join(errors.New("nobody can connect to it"), err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unix" {
		l.Close()
		return nil, fmt.Errorf("it is of network %s, not a Unix stream socket", l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

func makeSocket(path string) (*socket, error) {
	fd, file, err := listen.Make(path, unix.SOCK_STREAM)
	if err != nil {
		return nil, hosterr.Errorf("listen on %s: %w", path, err)
	}
	l, err := listenerOf(fd)
	if err != nil {
		return nil, hosterr.Errorf("listen on %s: %w", path, err)
	}
	return &socket{l, path, file}, nil
}

// close removes the file if it is still the one that was made here.
func (s *socket) close() {
	if s.made != nil {
		if info, err := os.Lstat(s.path); err == nil && os.SameFile(info, s.made) {
			os.Remove(s.path)
		}
	}
	s.Close()
}
