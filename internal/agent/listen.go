package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
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

// listen uses the socket that was passed in, or makes one.
func listen(path string, passed []int) (*socket, error) {
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

// makeSocket puts a socket in its place in one step, with its mode: nobody can
// connect before, and a runtime that connects meanwhile finds the old one or
// the new one.
func makeSocket(path string) (*socket, error) {
	dir, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, hosterr.Errorf("listen on %s: %w", path, err)
	}
	defer dir.Close()
	if err := clearPlace(path); err != nil {
		return nil, hosterr.Errorf("listen on %s: %w", path, err)
	}
	s, err := bindAt(path)
	if err != nil {
		return nil, hosterr.Errorf("listen on %s: %w", path, err)
	}
	return s, nil
}

// lockDirectory makes agents that start at once take turns. Anybody who could
// replace the socket would be given the listeners of containers.
func lockDirectory(path string) (*os.File, error) {
	if err := makeDirectory(path); err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil {
		err = checkDirectory(info)
	}
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// makeDirectory makes the directory of the socket: one below /run does not
// survive a shutdown. Runtimes of all users pass through it.
func makeDirectory(path string) error {
	const mode = 0o755
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(path, mode) // whatever the umask
	}
	return err
}

func checkDirectory(info os.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0 && owner != uint32(unix.Geteuid()):
		return fmt.Errorf("the directory belongs to user %d, who could replace the socket", owner)
	case info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("others may write to the directory (mode %#o), and could replace the socket", info.Mode().Perm())
	}
	return nil
}

// clearPlace refuses anything but the socket of an agent that has gone.
func clearPlace(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("there is a link, and it is not followed")
	case info.Mode()&fs.ModeSocket == 0:
		return errors.New("there is a file that is not a socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return errors.New("somebody listens there already")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether somebody listens there already: %w", err)
	}
	return nil
}

func bindAt(path string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	temporary := fmt.Sprintf("%s.%d", path, unix.Getpid())
	if len(temporary) >= len(unix.RawSockaddrUnix{}.Path) {
		temporary = filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d", unix.Getpid()))
	}
	os.Remove(temporary)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: temporary})
	if err == nil {
		defer os.Remove(temporary)
		err = errors.Join(os.Chmod(temporary, 0o600), unix.Listen(fd, unix.SOMAXCONN))
	}
	var info os.FileInfo
	if err == nil {
		info, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	l, err := listenerOf(fd)
	if err != nil {
		return nil, err
	}
	return &socket{l, path, info}, nil
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
