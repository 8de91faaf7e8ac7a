package subject

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// Options configure a Reader.
type Options struct {
	Digests   int   // kept for each share; 0: none is computed
	MaxDigest int64 // bytes; a larger executable has no digest. 0: 256 MiB
	Units     bool  // whether units are read; see SetUnits
	// Recent is for how long Glance returns the last findings while the thread
	// runs the same executable. 0: not at all.
	Recent time.Duration
}

const (
	defaultMaxDigest = 256 << 20
	maxTasks         = 256 // handles of tasks kept open, of three descriptors each
)

// Reader is the common part of the shares of one process. It is safe for
// concurrent use, as they are.
type Reader struct {
	options  Options
	proc     int // descriptor of /proc
	self     self
	pace     pace
	overlays *overlays
	units    atomic.Bool

	open   sync.RWMutex // read-locked by every look
	closed bool

	mu    sync.Mutex
	tasks []*task // not in use, the most recently used at the end
}

// Share identifies the threads of one workload. Its results and its work take
// nothing away from other shares.
type Share struct {
	*Reader
	need    func(binary string) Need
	digests *digests
	kept    int // the number of the reader's tasks that belong to this share
}

// Need is the purpose of a digest.
type Need int

const (
	// NotNeeded digests are not computed.
	NotNeeded Need = iota
	// ToRecord is for a reader of the records. Where a change of the file may
	// not show, an earlier digest is good enough, since hashing at each look
	// delays the caller.
	ToRecord
	// ToDecide is for a rule that asks for the digest.
	ToDecide
)

// Share makes a share. need says what the digest of an executable is needed
// for, so that nobody can make the reader hash a file that no rule asks for;
// binary is "" if it is not established. With nil, every digest is needed to
// decide.
func (r *Reader) Share(need func(binary string) Need) *Share {
	if need == nil {
		need = func(string) Need { return ToDecide }
	}
	return &Share{Reader: r, need: need, digests: newDigests(r.options.Digests, r.options.MaxDigest, &r.pace)}
}

// Close closes the descriptors kept for a share, which may be used again.
func (sh *Share) Close() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.tasks = slices.DeleteFunc(sh.tasks, func(t *task) bool {
		if t.share == sh {
			t.close()
		}
		return t.share == sh
	})
	sh.kept = 0
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
	overlays, err := openOverlays(proc)
	if err != nil {
		unix.Close(proc)
		return nil, err
	}
	r := &Reader{options: o, proc: proc, self: self, pace: newPace(), overlays: overlays}
	r.units.Store(o.Units)
	return r, nil
}

// SetUnits says whether units are read from now on.
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

// Look identifies the thread tid, as of now. If the digest is not known, it
// reads the executable, for a limited time.
//
// The kernel's facts about a thread hold while the thread is blocked. The
// caller has to check, after Look, that it is still the thread that asked
// (SECCOMP_IOCTL_NOTIF_ID_VALID).
func (sh *Share) Look(tid int) Subject { return sh.look(tid, 0, true) }

// Glance is a Look that does not wait. It computes no digest: one that is
// needed and not known is Pending.
//
// With Options.Recent, most facts may be a moment old (Recent is set then):
// user, capabilities, tracer, unit and namespaces, and whether the name of the
// executable leads to it. The thread had those rights then, and could have used
// them. The executed file is always of now. A missing fact may have come since:
// Look before anybody is denied.
func (sh *Share) Glance(tid int) Subject { return sh.look(tid, sh.options.Recent, false) }

func (sh *Share) look(tid int, recent time.Duration, hash bool) Subject {
	sh.open.RLock()
	defer sh.open.RUnlock()
	s := Subject{TID: tid}
	t, err := sh.take(tid)
	if err == nil && t.recent(recent) {
		s = t.seen
		s.Recent = true
		sh.give(t)
		return s
	}
	at := time.Now() // before what is read: a digest takes its time
	var st proc.Status
	if err == nil {
		t, st, err = sh.status(t)
	}
	if err != nil {
		for _, f := range []Fact{Process, Binary, Digest, User, Capabilities, Unit, Containment} {
			s.unknown(f, "%v", err)
		}
		return s
	}
	defer sh.give(t)
	s.PID, s.Tracer = st.TGID, st.Tracer
	users, err := namespaceAt(t.dir, "ns/user", t.buf)
	sh.credentials(&s, t, &st, users, err)
	sh.executable(&s, t, err == nil && users == sh.self.users, hash)
	sh.unit(&s, t)
	t.seen, t.at = s, at
	return s
}

// Close waits for the looks under way and closes the reader's descriptors.
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
	r.overlays.mounts.Close()
}
