// Package bounded reads what anybody may have written, up to a limit.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// TooLargeError says that there is more than may be read.
type TooLargeError struct {
	Limit int64 // in bytes, a whole number of KiB
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("larger than %d KiB, the most that is read", e.Limit>>10)
}

// Reader fails with a TooLargeError where io.LimitReader would end.
func Reader(r io.Reader, limit int64) io.Reader { return &reader{r, limit, limit} }

type reader struct {
	r           io.Reader
	left, limit int64
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 {
		n, err := r.r.Read(p[:1])
		if n > 0 {
			return 0, &TooLargeError{r.limit}
		}
		return 0, err
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// ReadAll returns what a stream says, up to limit bytes.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(Reader(r, limit))
	if err != nil {
		return nil, err
	}
	return text, nil
}

// ReadFile returns the content of a regular file of up to limit bytes. It never
// blocks on anything else. Errors do not repeat the path.
func ReadFile(path string, limit int64) ([]byte, error) {
	// Asked before the open, because opening a device can act on it.
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	var system unix.Statfs_t
	if err := unix.Statfs(path, &system); err != nil {
		return nil, err
	}
	if err := errors.Join(regular(info), stored(&system)); err != nil {
		return nil, err
	}
	// Without O_NONBLOCK, a FIFO that took the file's place would block.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, reason(err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &system); err != nil {
		return nil, err
	}
	if err := errors.Join(regular(info), stored(&system)); err != nil {
		return nil, err
	}
	src, err := ReadAll(f, limit)
	if err != nil {
		return nil, reason(err)
	}
	return src, nil
}

func regular(info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return errors.New("it is " + Kind(info.Mode()))
}

// Kind names the kind of a file: "a directory".
func Kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

// pseudo are the file systems whose files the kernel makes up while they are
// read: /proc/kmsg and tracefs' trace_pipe are regular files that block, and
// reading others changes something. The magic numbers are those of
// linux/magic.h.
var pseudo = map[int64]string{
	unix.PROC_SUPER_MAGIC:      "proc",
	unix.SYSFS_MAGIC:           "sysfs",
	unix.TRACEFS_MAGIC:         "tracefs",
	unix.DEBUGFS_MAGIC:         "debugfs",
	unix.SECURITYFS_MAGIC:      "securityfs",
	unix.SELINUX_MAGIC:         "selinuxfs",
	unix.SMACK_MAGIC:           "smackfs",
	unix.CGROUP_SUPER_MAGIC:    "cgroup",
	unix.CGROUP2_SUPER_MAGIC:   "cgroup2",
	unix.BPF_FS_MAGIC:          "bpf",
	unix.BINFMTFS_MAGIC:        "binfmt_misc",
	unix.EFIVARFS_MAGIC:        "efivarfs",
	unix.RDTGROUP_SUPER_MAGIC:  "resctrl",
	unix.NSFS_MAGIC:            "nsfs",
	unix.DEVPTS_SUPER_MAGIC:    "devpts",
	unix.ANON_INODE_FS_MAGIC:   "anon_inodefs",
	unix.SOCKFS_MAGIC:          "sockfs",
	unix.PIPEFS_MAGIC:          "pipefs",
	unix.DAXFS_MAGIC:           "dax",
	unix.BDEVFS_MAGIC:          "bdev",
	unix.XENFS_SUPER_MAGIC:     "xenfs",
	unix.USBDEVICE_SUPER_MAGIC: "usbfs",
	configfsMagic:              "configfs",
	fusectlMagic:               "fusectl",
	mqueueMagic:                "mqueue",
}

// Magic numbers in the C files of their file systems.
const (
	configfsMagic = 0x62656570 // fs/configfs/mount.c
	fusectlMagic  = 0x65735543 // fs/fuse/control.c
	mqueueMagic   = 0x19800202 // ipc/mqueue.c
)

// stored refuses a file that is stored nowhere.
func stored(system *unix.Statfs_t) error {
	if name, ok := pseudo[int64(uint32(system.Type))]; ok {
		return fmt.Errorf("it is on %s, whose files the kernel makes up: copy it to a file first", name)
	}
	return nil
}

// reason drops the path, which the caller shows as the user wrote it.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
