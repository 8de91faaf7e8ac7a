package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/listen"
)

// maxPlace leaves room for what openEar appends.
const maxPlace = len(unix.RawSockaddrUnix{}.Path) - len(".notify-123456") - 1

// checkPlace refuses a place that another user could put a socket at: what connects
// there gets the listeners of all containers, and what is found there is believed.
func checkPlace(path string) error {
	if len(path) > maxPlace {
		return fmt.Errorf("its path has %d bytes, and %d are the most", len(path), maxPlace)
	}
	dir := filepath.Dir(path)
	if err := listen.MakeDirectory(dir); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for at, last := real, true; ; at, last = filepath.Dir(at), false {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t).Uid
		switch {
		case owner != 0 && owner != uint32(unix.Geteuid()):
			return fmt.Errorf("the directory %s belongs to user %d, who could put another socket there", at, owner)
		case info.Mode()&0o022 != 0 && (last || info.Mode()&os.ModeSticky == 0):
			return fmt.Errorf("others may write to the directory %s (mode %#o), and could put another socket there", at, info.Mode().Perm())
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// socket is one to listen on, with the file at its place.
type socket struct {
	path string
	kind int // SOCK_STREAM or SOCK_SEQPACKET
	fd   int // -1: none
	file fileID
}

// fileID tells files apart.
type fileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

func idOf(info os.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{Device: st.Dev, Inode: st.Ino}
}

func makeSocket(path string, kind int) (socket, error) {
	fd, info, err := listen.Make(path, kind)
	if err != nil {
		return socket{fd: -1}, err
	}
	return socket{path: path, kind: kind, fd: fd, file: idOf(info)}, nil
}

// inPlace reports whether who connects to the path reaches this socket.
func (s *socket) inPlace() bool {
	info, err := os.Lstat(s.path)
	return err == nil && idOf(info) == s.file
}

// renew makes the socket anew where its file has gone: nobody could reach it, and
// an agent that tries itself would end again and again.
func (s *socket) renew() error {
	if s.fd >= 0 && s.inPlace() {
		return nil
	}
	next, err := makeSocket(s.path, s.kind)
	if err != nil {
		return err
	}
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	*s = next
	return nil
}

// close closes the socket, and with remove takes its file away.
func (s *socket) close(remove bool) {
	if s.fd < 0 {
		return
	}
	if remove && s.inPlace() {
		os.Remove(s.path)
	}
	unix.Close(s.fd)
	s.fd = -1
}
