package vouch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// store is a directory tree that only root, or the user whose platform it is,
// can change. Nothing in it is reached through a link, and no file or directory
// on the way belongs to, or can be written by, anybody else.
type store struct {
	path string
	fd   int
}

// openStore opens a directory. The directories above it may be sticky, as /tmp
// is: there nobody can replace another user's file.
func openStore(path string) (*store, error) {
	// A platform's data may lie behind a link; the target of that is checked.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s: not an absolute path", path)
	}
	fd, err := unix.Open("/", dirFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	// In the user namespace of a rootless platform, "/" is nobody's.
	var top unix.Stat_t
	if err := unix.Fstat(fd, &top); err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: "/", Err: err}
	}
	elems := strings.Split(strings.Trim(path, "/"), "/")
	s := &store{path: "/", fd: fd}
	for i, elem := range elems {
		if elem == "" {
			continue
		}
		next, st, err := s.enter(elem)
		s.close()
		if err != nil {
			return nil, err
		}
		s = next
		above := i < len(elems)-1
		if above && (st.Uid == top.Uid || owned(st)) && (st.Mode&0o022 == 0 || st.Mode&unix.S_ISVTX != 0) {
			continue
		}
		if err := trusted(s.path, st); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

const (
	dirFlags  = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fileFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
)

func (s *store) close() { _ = unix.Close(s.fd) }

// dir checks that the directory at the end of the path exists and is trusted.
func (s *store) dir(elems ...string) error {
	d, err := s.descend(elems)
	if err == nil {
		d.close()
	}
	return err
}

// read returns the content of a regular file of up to limit bytes.
func (s *store) read(limit int64, elems ...string) ([]byte, error) {
	last := len(elems) - 1
	d, err := s.descend(elems[:last])
	if err != nil {
		return nil, err
	}
	defer d.close()
	path := filepath.Join(d.path, elems[last])
	if err := oneElement(elems[last]); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(d.fd, elems[last], fileFlags, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := trusted(path, &st); err != nil {
		return nil, err
	}
	return readUpTo(f, st.Size, limit)
}

// readUpTo reads a file of a known size.
func readUpTo(f *os.File, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", f.Name(), size, limit)
	}
	src := make([]byte, size)
	if _, err := io.ReadFull(f, src); err != nil {
		return nil, fmt.Errorf("%s: it changed while it was read: %w", f.Name(), err)
	}
	return src, nil
}

// descend enters one directory after the other.
func (s *store) descend(elems []string) (*store, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.path, Err: err}
	}
	d := &store{path: s.path, fd: fd}
	for _, elem := range elems {
		next, st, err := d.enter(elem)
		d.close()
		if err != nil {
			return nil, err
		}
		d = next
		if err := trusted(d.path, st); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// enter opens a directory in this one, and leaves the judgement to the caller.
func (s *store) enter(elem string) (*store, *unix.Stat_t, error) {
	path := filepath.Join(s.path, elem)
	if err := oneElement(elem); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Openat(s.fd, elem, dirFlags, 0)
	if err != nil {
		return nil, nil, openError(path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return &store{path: path, fd: fd}, &st, nil
}

func oneElement(elem string) error {
	if elem == "" || elem == "." || elem == ".." || strings.ContainsAny(elem, "/\x00") {
		return fmt.Errorf("%.100q is no name of a file", elem)
	}
	return nil
}

// openError says what ELOOP and ENOTDIR mean here.
func openError(path string, err error) error {
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s: a symbolic link; it is not followed", path)
	}
	return &os.PathError{Op: "open", Path: path, Err: err}
}

// trusted returns an error if anybody but root and this user can change a file.
func trusted(path string, st *unix.Stat_t) error {
	switch {
	case !owned(st):
		return fmt.Errorf("%s: it belongs to user %d, who could write anything there", path, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s: others can write there (mode %#o)", path, st.Mode&0o7777)
	}
	return nil
}

func owned(st *unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }
