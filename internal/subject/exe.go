package subject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// file is the result of one statx of an executable.
type file struct {
	version
	mount uint64
	links uint32
}

// executable fills in the executable and its digest. vouched means that the
// thread is in the reader's user namespace: in one of its own it may set
// /proc/TID/exe as it likes (PR_SET_MM_MAP).
//
// Except for Options.Recent, only the text of strings is carried over from an
// earlier look. The link is read anew, since an execve or a rename changes it.
// Whether it leads back to the file is checked anew too, since a mount over the
// path shows nowhere else.
//
// With hash the digest is computed, otherwise only looked up.
func (sh *Share) executable(s *Subject, t *task, vouched, hash bool) {
	f, fs, err := t.executable()
	t.exe = f
	if err != nil {
		s.unknown(Binary, "%v", err)
		sh.withoutDigest(s, err)
		return
	}
	s.Shown, s.Device, s.Inode = t.link, f.dev, f.ino
	switch {
	case s.Tracer != 0: // it may run anything
		err = fmt.Errorf("traced by thread %d", s.Tracer)
	case fs == unix.FUSE_SUPER_MAGIC:
		err = errFuse
	}
	if err != nil {
		s.unknown(Binary, "%v", err)
		sh.withoutDigest(s, err)
		return
	}
	if claimed, err := sh.verify(t, f); err != nil {
		s.unknown(Binary, "%v", err)
	} else {
		s.Binary, s.Claimed = t.link, claimed || !vouched
	}
	sh.digest(s, t, f.version, sh.stamps(fs, f.dev), hash)
}

// errFuse is an error because a file of a user's program may read differently
// at each read.
var errFuse = errors.New("on a FUSE file system")

func (r *Reader) withoutDigest(s *Subject, err error) {
	if r.options.Digests > 0 {
		s.unknown(Digest, "%v", err)
	}
}

func (sh *Share) digest(s *Subject, t *task, v version, stamps, hash bool) {
	need := sh.need(s.Binary)
	if sh.options.Digests == 0 || need == NotNeeded {
		return
	}
	stamps = stamps || need == ToRecord
	sum, err := sh.digests.known(v, stamps), error(nil)
	switch {
	case sum == "" && hash:
		sum, err = sh.digests.of(t.dir, v, stamps)
	case sum == "":
		s.Pending, err = true, errPending
	}
	if err != nil {
		s.unknown(Digest, "%v", err)
		return
	}
	s.SHA256 = sum
	if !sh.digests.telling(v, stamps) {
		t.exe = file{} // a file that looks the same is not therefore recent
	}
}

// stamps reports whether every change of a file shows on a file system of that
// type and device number.
func (r *Reader) stamps(fs int64, dev uint64) bool {
	if fs == unix.OVERLAYFS_SUPER_MAGIC {
		return r.overlays.stamp(dev)
	}
	return slices.Contains(stamping, fs)
}

var errPending = errors.New("not computed yet")

// executable returns the file behind /proc/TID/exe and the type of its file
// system. It puts the text of the link into t.link.
func (t *task) executable() (file, int64, error) {
	link, err := readLink(t.dir, "exe", t.buf)
	if err != nil {
		return file{}, 0, fmt.Errorf("read the link exe: %w", err)
	}
	if string(link) != t.link {
		t.link = string(link)
	}
	fd, err := openAt(t.dir, "exe", unix.O_PATH)
	if err != nil {
		return file{}, 0, fmt.Errorf("open exe: %w", err)
	}
	defer unix.Close(fd)
	f, err := stat(fd)
	if err != nil {
		return file{}, 0, fmt.Errorf("stat exe: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return file{}, 0, fmt.Errorf("statfs exe: %w", err)
	}
	return f, int64(fs.Type), nil
}

// verify checks that the link of the executable is a name of it. claimed means
// that it is one in another mount namespace than the reader's.
//
// The kernel makes the link by walking up from the file. It stops at the
// reader's root or, failing that, at the root of the file's mount namespace.
// For a thread of the reader's mount namespace the link is therefore a path
// from the reader's root, whatever chroot the thread is in. There the mount
// must be the same too. That excludes a mount over the path, and a file of
// another namespace with a namesake in this one. The text alone proves nothing,
// as a name may end in " (deleted)".
func (r *Reader) verify(t *task, f file) (claimed bool, err error) {
	if f.links == 0 {
		return false, errors.New("the file has been deleted")
	}
	if !strings.HasPrefix(t.link, "/") {
		return false, fmt.Errorf("%q is no absolute path", t.link)
	}
	mounts, err := namespaceAt(t.dir, "ns/mnt", t.buf)
	if err != nil {
		return false, fmt.Errorf("its mount namespace: %w", err)
	}
	var at file
	if claimed = mounts != r.self.mounts; claimed {
		at, err = t.fromItsRoot()
	} else {
		at, err = walk(unix.AT_FDCWD, t.link)
	}
	if err != nil {
		return false, err
	}
	if at.inode != f.inode || !claimed && at.mount != f.mount {
		return false, fmt.Errorf("%q is another file by now", t.link)
	}
	return claimed, nil
}

// fromItsRoot resolves the link in the root of the thread, which is the root of
// its mount namespace if its own name is "/". No call resolves a path from the
// root of the namespace of a thread that has left it by chroot.
func (t *task) fromItsRoot() (file, error) {
	root, err := readLink(t.dir, "root", t.buf)
	if err != nil {
		return file{}, fmt.Errorf("read the link root: %w", err)
	}
	if string(root) != "/" {
		return file{}, fmt.Errorf("its root is %q in another mount namespace", root)
	}
	fd, err := openAt(t.dir, "root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return file{}, fmt.Errorf("open its root: %w", err)
	}
	defer unix.Close(fd)
	return walk(fd, t.link)
}

// walk follows no symbolic link: the kernel writes none into the link of exe,
// so a link in the path was put there later. An absolute path starts at dir,
// unless that is AT_FDCWD.
func walk(dir int, path string) (file, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	if dir != unix.AT_FDCWD {
		how.Resolve |= unix.RESOLVE_IN_ROOT
	}
	fd, err := unix.Openat2(dir, path, &how)
	if err != nil {
		return file{}, fmt.Errorf("open %q: %w", path, err)
	}
	defer unix.Close(fd)
	f, err := stat(fd)
	if err != nil {
		return file{}, fmt.Errorf("stat %q: %w", path, err)
	}
	return f, nil
}

const statMask = unix.STATX_NLINK | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME | unix.STATX_MNT_ID

func stat(fd int) (file, error) { return statAt(fd, "", unix.AT_EMPTY_PATH) }

func statAt(dir int, path string, flags int) (file, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags, statMask, &st); err != nil {
		return file{}, err
	}
	if st.Mask&statMask != statMask {
		return file{}, fmt.Errorf("only %#x of %#x", st.Mask, statMask)
	}
	return file{
		version: version{
			inode:   inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino},
			size:    st.Size,
			changed: timestamp{st.Ctime.Sec, st.Ctime.Nsec},
		},
		mount: st.Mnt_id,
		links: st.Nlink,
	}, nil
}
