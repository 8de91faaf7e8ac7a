package subject

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options tells what a Reader reads.
type Options struct {
	Digests   int   // how many digests are kept; 0: none is computed
	MaxDigest int64 // bytes; a larger executable has no digest. 0: 256 MiB
	// Wanted tells whether the digest of an executable matters, so that nobody
	// can make the reader hash what no rule asks for. binary is "" if it is not
	// established. nil: every digest matters.
	Wanted func(binary string) bool
	Units  bool // whether units are read; see SetUnits
	// Recent is for how long Look returns what it found last, as long as the
	// thread runs the same executable. 0: not at all.
	Recent time.Duration
}

const (
	defaultMaxDigest = 256 << 20
	maxTasks         = 256 // handles of tasks kept open, of three descriptors each
)

// Reader tells who threads are. It is safe for concurrent use.
type Reader struct {
	options Options
	proc    int // descriptor of /proc
	self    self
	digests *digests
	units   atomic.Bool

	open   sync.RWMutex // read-locked by every look
	closed bool

	mu    sync.Mutex
	tasks []*task // not in use, the one used last at the end
}

// NewReader fails unless /proc is the procfs of the reader's own PID namespace:
// a thread id would mean another thread there.
func NewReader(o Options) (*Reader, error) {
	if o.Digests < 0 || o.MaxDigest < 0 {
		return nil, fmt.Errorf("reader of subjects: %d digests of up to %d bytes: negative", o.Digests, o.MaxDigest)
	}
	if o.MaxDigest == 0 {
		o.MaxDigest = defaultMaxDigest
	}
	proc, err := openProc("/proc")
	if err != nil {
		return nil, err
	}
	self, err := readSelf(proc)
	if err != nil {
		unix.Close(proc)
		return nil, err
	}
	r := &Reader{options: o, proc: proc, self: self, digests: newDigests(o.Digests, o.MaxDigest)}
	r.units.Store(o.Units)
	return r, nil
}

// SetUnits tells whether units are read from now on.
func (r *Reader) SetUnits(wanted bool) { r.units.Store(wanted) }

func openProc(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	if err := checkProc(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

func checkProc(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("not a procfs")
	}
	link, err := readLink(fd, "self", make([]byte, 32))
	if err != nil {
		return fmt.Errorf("read self: %w", err)
	}
	if string(link) != strconv.Itoa(unix.Getpid()) {
		return fmt.Errorf("the procfs of another PID namespace: self is %s, not %d", link, unix.Getpid())
	}
	return nil
}

// Look tells who the thread tid is. It may take as long as it takes to read the
// executable, and blocks as long as the file system of it does.
//
// What the kernel says of a thread holds for as long as the thread is blocked.
// That it still is the thread that asked, after Look, is for the caller to see
// (SECCOMP_IOCTL_NOTIF_ID_VALID).
//
// With Options.Recent, user, capabilities, tracer, unit and namespaces, and
// that the name of the executable leads to it, may be of a moment ago (Recent
// is set then): the thread had those rights then, and could have used them.
// Which file it executes is always of now. What is missing may have come since:
// LookAgain before anybody is denied.
func (r *Reader) Look(tid int) Subject { return r.look(tid, r.options.Recent) }

// LookAgain is Look with nothing taken from before.
func (r *Reader) LookAgain(tid int) Subject { return r.look(tid, 0) }

func (r *Reader) look(tid int, recent time.Duration) Subject {
	r.open.RLock()
	defer r.open.RUnlock()
	s := Subject{TID: tid}
	t, err := r.take(tid)
	if err == nil && t.recent(recent) {
		s = t.seen
		s.Recent = true
		r.give(t)
		return s
	}
	at := time.Now() // before what is read: a digest takes its time
	var st status
	if err == nil {
		t, st, err = r.status(t)
	}
	if err != nil {
		for _, f := range []Fact{Process, Binary, Digest, User, Capabilities, Unit, Containment} {
			s.unknown(f, "%v", err)
		}
		return s
	}
	defer r.give(t)
	s.PID, s.Tracer = st.tgid, st.tracer
	users, err := namespaceAt(t.dir, "ns/user", t.buf)
	r.credentials(&s, t, &st, users, err)
	r.executable(&s, t, err == nil && users == r.self.users)
	r.unit(&s, t)
	t.seen, t.at = s, at
	return s
}

// Close waits for the looks under way and closes what the reader holds open.
// Later looks know nothing.
func (r *Reader) Close() {
	r.open.Lock()
	defer r.open.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	for _, t := range r.tasks {
		t.close()
	}
	unix.Close(r.proc)
}
