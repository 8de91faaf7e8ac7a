package subject

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// version names a state of a file. While it is the same, so is the content, on
// a file system that stamps every change, and once sameStamp has gone by.
type version struct {
	inode
	size    uint64
	changed timestamp
}

// inode names a file for as long as the file exists.
type inode struct{ dev, ino uint64 }

type timestamp struct {
	sec  int64
	nsec uint32
}

// sameStamp is how long after a change another one may have the same time. The
// kernel's clock for this ticks every 10 ms or faster.
const sameStamp = 2 * time.Second

// stamping lists the file systems on which every change of the content changes
// the change time, even a store through a shared mapping: they learn of the
// first store to a page (page_mkwrite). On tmpfs a page that was read through
// the mapping is writable from then on, and nothing shows. For overlayfs it
// depends on the file system below (overlays).
var stamping = []int64{
	unix.EXT4_SUPER_MAGIC, // and ext2, ext3
	unix.XFS_SUPER_MAGIC,
	unix.BTRFS_SUPER_MAGIC,
	unix.F2FS_SUPER_MAGIC,
	unix.EROFS_SUPER_MAGIC_V1,
	unix.SQUASHFS_MAGIC,
}

// patience bounds how long a look waits for a digest. A caller whose executable
// takes longer, or that has many of them, is denied.
const patience = 30 * time.Second

// digests are the digests of one share. It hashes one executable at a time.
type digests struct {
	max      int64
	now      func() time.Time
	patience time.Duration
	pace     *pace
	slot     chan struct{}

	mu      sync.Mutex
	sums    map[version]string
	order   []version // of sums; the oldest is at next once it is full
	next    int
	size    int // the number of digests kept
	running map[version]*hashing
}

type hashing struct {
	done   chan struct{}
	sum    string
	err    error
	shared *version // nil if the digest is for one look only
}

func newDigests(size int, max int64, p *pace) *digests {
	return &digests{
		max:      max,
		now:      time.Now,
		patience: patience,
		pace:     p,
		slot:     make(chan struct{}, 1),
		sums:     map[version]string{},
		size:     size,
		running:  map[version]*hashing{},
	}
}

// pace limits all hashing together to half of one processor, so that it delays
// nobody's calls: a step of one share, a rest, a step of the next.
type pace struct{ turn chan struct{} }

func newPace() pace { return pace{make(chan struct{}, 1)} }

// step does some of the work. It must not block: the others wait.
func (p *pace) step(work func()) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	start := time.Now()
	work()
	time.Sleep(time.Since(start))
}

// known returns a kept digest, or "".
func (d *digests) known(v version, stamps bool) string {
	if !d.telling(v, stamps) {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sums[v]
}

var errSlow = errors.New("the executable was not hashed in time")

// of returns the digest of the executable of the task at dir, which is in the
// state v; stamps reports whether every change of it shows.
func (d *digests) of(dir int, v version, stamps bool) (string, error) {
	if v.size > uint64(d.max) {
		return "", fmt.Errorf("%d bytes, more than the %d that are hashed", v.size, d.max)
	}
	late := time.After(d.patience)
	h, begun := d.join(v, d.telling(v, stamps))
	if begun {
		return h.wait(late)
	}
	fd, err := d.admit(dir, late)
	if err != nil {
		d.end(h, "", err)
		return "", err
	}
	// Another goroutine reads: this one must not wait for a disk that does not
	// answer.
	go func() {
		sum, err := d.hash(fd, v)
		unix.Close(fd)
		<-d.slot
		d.end(h, sum, err)
	}()
	return h.wait(late)
}

// join returns the hashing of a version, which may have begun already. A
// version that may stay the same after a change is hashed for its caller alone.
func (d *digests) join(v version, telling bool) (h *hashing, begun bool) {
	h = &hashing{done: make(chan struct{})}
	if !telling {
		return h, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.running[v]; other != nil {
		return other, true
	}
	h.shared, d.running[v] = &v, h
	return h, false
}

// admit waits for the slot. It opens the executable first: the task may be gone
// when its turn comes.
func (d *digests) admit(dir int, late <-chan time.Time) (fd int, err error) {
	if fd, err = openAt(dir, "exe", unix.O_RDONLY); err != nil {
		return -1, fmt.Errorf("open exe: %w", err)
	}
	select {
	case d.slot <- struct{}{}:
		return fd, nil
	case <-late:
		unix.Close(fd)
		return -1, errSlow
	}
}

// end wakes the waiters once the digest is kept: a further look finds it.
func (d *digests) end(h *hashing, sum string, err error) {
	h.sum, h.err = sum, err
	defer close(h.done)
	if h.shared == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, *h.shared)
	if err == nil {
		d.keep(*h.shared, sum)
	}
}

func (h *hashing) wait(late <-chan time.Time) (string, error) {
	select {
	case <-h.done:
		return h.sum, h.err
	case <-late:
		return "", errSlow
	}
}

// telling reports whether a change of the file after v would show as another
// version.
func (d *digests) telling(v version, stamps bool) bool {
	return stamps &&
		time.Unix(v.changed.sec, int64(v.changed.nsec)).Before(d.now().Add(-sameStamp))
}

func (d *digests) keep(v version, sum string) {
	if len(d.order) < d.size {
		d.order = append(d.order, v)
	} else {
		delete(d.sums, d.order[d.next])
		d.order[d.next] = v
		d.next = (d.next + 1) % len(d.order)
	}
	d.sums[v] = sum
}

var errChanged = errors.New("the file changed while it was read")

// hash reads the executed file, whatever its name is now.
func (d *digests) hash(fd int, v version) (string, error) {
	if err := same(fd, v); err != nil {
		return "", err
	}
	sum, err := d.sumOf(fd, v.size)
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

func (d *digests) sumOf(fd int, size uint64) (string, error) {
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
		d.pace.step(func() { h.Write(buf[:n]) })
	}
}
