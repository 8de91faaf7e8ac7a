// Package listen makes a Unix socket to listen on: in one step, with its mode, in
// a directory where nobody else can put another one.
package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrTaken means that a process listens at the place.
var ErrTaken = errors.New("somebody listens there already")

// Make puts a socket in its place, and returns it with its file. It does not block,
// and its user alone can connect, from the first moment. kind is SOCK_STREAM or
// SOCK_SEQPACKET.
func Make(path string, kind int) (fd int, file os.FileInfo, err error) {
	dir, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return -1, nil, err
	}
	defer dir.Close()
	if err := clearPlace(path); err != nil {
		return -1, nil, err
	}
	return bindAt(path, kind)
}

// lockDirectory makes agents that start at once take turns. Anybody who could
// replace the socket would be given the listeners of containers.
func lockDirectory(path string) (*os.File, error) {
	if err := MakeDirectory(path); err != nil {
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

// MakeDirectory makes the directory of the socket: one below /run does not
// survive a shutdown. Runtimes of all users pass through it.
func MakeDirectory(path string) error {
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

// clearPlace removes the socket of a process that has gone, and nothing else.
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
		return ErrTaken
	}
	if errors.Is(err, unix.EPROTOTYPE) { // of the other kind, and alive
		return ErrTaken
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether somebody listens there already: %w", err)
	}
	return os.Remove(path)
}

func bindAt(path string, kind int) (fd int, file os.FileInfo, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, err
	}
	// The file gets the mode that the socket has (unix_bind_bsd in the kernel).
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err == nil {
		file, err = os.Lstat(path)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, file, nil
}
