package subject

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFuse(t *testing.T) {
	dir := publicDir(t)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	start(t, command("serve", program, dir))
	path := filepath.Join(dir, "subject")
	c := start(t, command("wait", path))
	s := newReader(t, Options{Digests: 8}).Look(c.tid())
	wantBinary(t, s, "", false, "on a FUSE file system")
	wantDigest(t, s, "", "on a FUSE file system")
	if s.Shown != path {
		t.Errorf("shown as %q", s.Shown)
	}
}

// serveFuse mounts a file system on a directory, with the test binary as the
// only file. It starts nothing from there: a process that forks has its threads
// stopped, and would wait for itself.
func serveFuse(args []string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Mount("subject", args[0], "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- (&fuse{dev, data}).serve() }()
	go func() { ended <- wait() }()
	return <-ended
}

// fuse is the part of include/uapi/linux/fuse.h that execve needs.
type fuse struct {
	dev  int
	data []byte
}

type fuseIn struct {
	Len, Opcode                uint32
	Unique, Node               uint64
	UID, GID, PID, Extra       uint32
	Handle, Offset, Size, Rest uint64 // of a read; only half of Size is one
}

type fuseAttr struct {
	Ino, Size, Blocks, Atime, Mtime, Ctime                            uint64
	AtimeNsec, MtimeNsec, CtimeNsec, Mode, Nlink, UID, GID, Rdev, Blk uint32
	Flags                                                             uint32
}

func (f *fuse) attr(node uint64) fuseAttr {
	if node == 1 {
		return fuseAttr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	}
	return fuseAttr{Ino: 2, Size: uint64(len(f.data)), Mode: unix.S_IFREG | 0o755, Nlink: 1}
}

func (f *fuse) serve() error {
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(f.dev, buf)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err
		}
		var in fuseIn
		if err := binary.Read(bytes.NewReader(append(buf[:n:n], make([]byte, 80)...)), binary.NativeEndian, &in); err != nil {
			return err
		}
		if err := f.answer(in); err != nil {
			return err
		}
	}
}

func (f *fuse) answer(in fuseIn) error {
	var body any = []byte{}
	errno := unix.Errno(0)
	switch in.Opcode {
	case 1: // LOOKUP: node, generation, two validities; one name is enough
		body = struct {
			Node, Generation, Valid, AttrValid, Nsecs uint64
			Attr                                      fuseAttr
		}{Node: 2, Attr: f.attr(2)}
	case 2, 42: // FORGET, BATCH_FORGET have no answer
		return nil
	case 3: // GETATTR
		body = struct {
			Valid, Nsecs uint64
			Attr         fuseAttr
		}{Attr: f.attr(in.Node)}
	case 14: // OPEN
		body = [2]uint64{}
	case 15: // READ
		from := min(in.Offset, uint64(len(f.data)))
		body = f.data[from:min(from+in.Size&0xffffffff, uint64(len(f.data)))]
	case 17: // STATFS
		body = [10]uint64{}
	case 18, 25: // RELEASE, FLUSH
	case 26: // INIT: version 7.31, no flags
		body = [16]uint32{7, 31, 0, 0, 0, 4096}
	default:
		errno = unix.ENOSYS
	}
	var out bytes.Buffer
	for _, part := range []any{uint32(16 + binary.Size(body)), -int32(errno), in.Unique, body} {
		if err := binary.Write(&out, binary.NativeEndian, part); err != nil {
			return err
		}
	}
	_, err := unix.Write(f.dev, out.Bytes())
	if err == unix.ENOENT { // interrupted
		return nil
	}
	return err
}
