package subject

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// version names a state of a file: while it is the same, so is the content, on
// a file system that stamps every change, and once settle has gone by.
type version struct {
	inode
	size    uint64
	changed timestamp
}

// inode names a file, for as long as there is one.
type inode struct{ dev, ino uint64 }

type timestamp struct {
	sec  int64
	nsec uint32
}

// settle is how long after a change another one may bear the same time. The
// kernel's own clock for this ticks every 10 ms or faster.
const settle = 2 * time.Second

// stamping lists the file systems on which every change of the content changes
// the change time, a store through a shared mapping too: they are told of the
// first store to a page (page_mkwrite). On tmpfs a page that was read through
// the mapping is writable from then on, and nothing shows. Overlayfs does as
// the file system below.
var stamping = []int64{
	unix.EXT4_SUPER_MAGIC, // and ext2, ext3
	unix.XFS_SUPER_MAGIC,
	unix.BTRFS_SUPER_MAGIC,
	unix.F2FS_SUPER_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC,
	unix.EROFS_SUPER_MAGIC_V1,
	unix.SQUASHFS_MAGIC,
}

const hashers = 2 // executables that are hashed at once

type digests struct {
	max   int64
	now   func() time.Time
	slots chan struct{}

	mu      sync.Mutex
	sums    map[version]string
	order   []version // of sums; the oldest is at next once it is full
	next    int
	running map[version]*hashing
}

type hashing struct {
	done chan struct{}
	sum  string
	err  error
}

func newDigests(size int, max int64) *digests {
	return &digests{
		max:     max,
		now:     time.Now,
		slots:   make(chan struct{}, hashers),
		sums:    make(map[version]string, size),
		order:   make([]version, 0, size),
		running: make(map[version]*hashing),
	}
}

// of returns the digest of the executable of the task at dir, which is in the
// state v on a file system of type fs.
func (d *digests) of(dir int, v version, fs int64) (string, error) {
	if v.size > uint64(d.max) {
		return "", fmt.Errorf("%d bytes, more than the %d that are hashed", v.size, d.max)
	}
	if !d.telling(v, fs) {
		return d.hash(dir, v)
	}
	d.mu.Lock()
	if sum, ok := d.sums[v]; ok {
		d.mu.Unlock()
		return sum, nil
	}
	if h := d.running[v]; h != nil {
		d.mu.Unlock()
		<-h.done
		if h.err != nil { // that task may be gone; this one is not
			return d.hash(dir, v)
		}
		return h.sum, nil
	}
	h := &hashing{done: make(chan struct{})}
	d.running[v] = h
	d.mu.Unlock()

	h.sum, h.err = d.hash(dir, v)
	close(h.done)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, v)
	if h.err == nil {
		d.keep(v, h.sum)
	}
	return h.sum, h.err
}

// telling tells whether a change of the file after v would show as another
// version.
func (d *digests) telling(v version, fs int64) bool {
	return slices.Contains(stamping, fs) &&
		time.Unix(v.changed.sec, int64(v.changed.nsec)).Before(d.now().Add(-settle))
}

func (d *digests) keep(v version, sum string) {
	if len(d.order) < cap(d.order) {
		d.order = append(d.order, v)
	} else {
		delete(d.sums, d.order[d.next])
		d.order[d.next] = v
		d.next = (d.next + 1) % len(d.order)
	}
	d.sums[v] = sum
}

var errChanged = errors.New("the file changed while it was read")

// hash reads through exe, so what was executed, under whatever name it is now.
func (d *digests) hash(dir int, v version) (string, error) {
	d.slots <- struct{}{}
	defer func() { <-d.slots }()
	fd, err := openAt(dir, "exe", unix.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("open exe: %w", err)
	}
	defer unix.Close(fd)
	if err := same(fd, v); err != nil {
		return "", err
	}
	sum, err := sumOf(fd, v.size)
	if err != nil {
		return "", fmt.Errorf("read exe: %w", err)
	}
	if err := same(fd, v); err != nil {
		return "", err
	}
	return sum, nil
}

func same(fd int, v version) error {
	f, err := stat(fd)
	if err != nil {
		return fmt.Errorf("stat exe: %w", err)
	}
	if f.version != v {
		return errChanged
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

func sumOf(fd int, size uint64) (string, error) {
	buf := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	h := sha256.New()
	for read := uint64(0); ; {
		n, err := unix.Read(fd, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", err
		case n == 0 && read == size:
			return hex.EncodeToString(h.Sum(nil)), nil
		case n == 0 || uint64(n) > size-read:
			return "", errChanged
		}
		read += uint64(n)
		h.Write(buf[:n])
	}
}
