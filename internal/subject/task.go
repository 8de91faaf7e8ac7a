package subject

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// task is a handle on one task, not on its number: a descriptor of /proc/TID
// fails for ever once the task is gone, whichever task has the number then. A
// look has its handle to itself.
type task struct {
	share               *Share
	tid                 int
	dir, status, cgroup int
	buf                 []byte

	// Results of the last look, compared with what is read so that an unchanged
	// value is not made again.
	link         string
	capabilities []string
	mask         uint64
	cgroupText   []byte
	unit         string
	unitErr      error

	exe  file // the target of the link; zero if unknown
	seen Subject
	at   time.Time // of seen
}

// recent reports whether the last findings are at most that old, and the
// executable is still the same, unchanged.
func (t *task) recent(age time.Duration) bool {
	if age == 0 || t.exe == (file{}) || time.Since(t.at) >= age {
		return false
	}
	f, err := statAt(t.dir, "exe", 0)
	return err == nil && f == t.exe
}

var errClosed = errors.New("the reader is closed")

// take returns a handle on a task that has, or had, the number.
func (sh *Share) take(tid int) (*task, error) {
	if sh.closed {
		return nil, errClosed
	}
	if tid <= 0 {
		// Seccomp shows a thread outside the reader's PID namespace as 0.
		return nil, fmt.Errorf("no thread has the id %d in this PID namespace", tid)
	}
	if t := sh.cached(tid); t != nil {
		return t, nil
	}
	return sh.openTask(tid)
}

// status returns the status of the task that has the number now, and a handle
// on it. The one given is closed if that is another task's.
func (sh *Share) status(t *task) (*task, proc.Status, error) {
	st, err := t.readStatus()
	if err == nil {
		return t, st, nil
	}
	t.close() // ESRCH: the number is free, or another task's
	if t, err = sh.openTask(t.tid); err != nil {
		return nil, proc.Status{}, err
	}
	if st, err = t.readStatus(); err != nil {
		t.close()
		return nil, proc.Status{}, err
	}
	return t, st, nil
}

// cached takes a handle out of the cache.
func (sh *Share) cached(tid int) *task {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := len(sh.tasks) - 1; i >= 0; i-- {
		if t := sh.tasks[i]; t.tid == tid && t.share == sh {
			return sh.withdraw(i)
		}
	}
	return nil
}

// give puts a handle into the cache. If the cache is full, the share with the
// most handles loses its oldest.
func (sh *Share) give(t *task) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if slices.ContainsFunc(sh.tasks, func(other *task) bool { return other.tid == t.tid && other.share == sh }) {
		t.close() // two looks at one thread at once
		return
	}
	sh.tasks = append(sh.tasks, t)
	sh.kept++
	if len(sh.tasks) > maxTasks {
		most := 0
		for i, other := range sh.tasks {
			if other.share.kept > sh.tasks[most].share.kept {
				most = i
			}
		}
		sh.withdraw(most).close()
	}
}

// withdraw takes out the nth handle. The reader is locked.
func (r *Reader) withdraw(n int) *task {
	t := r.tasks[n]
	r.tasks = slices.Delete(r.tasks, n, n+1)
	t.share.kept--
	return t
}

func (sh *Share) openTask(tid int) (*task, error) {
	name := strconv.Itoa(tid)
	dir, err := unix.Openat(sh.proc, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/%s: %w", name, err)
	}
	t := &task{share: sh, tid: tid, dir: dir, status: -1, cgroup: -1, buf: make([]byte, unix.PathMax)}
	if t.status, err = openAt(dir, "status", unix.O_RDONLY); err != nil {
		t.close()
		return nil, fmt.Errorf("open /proc/%s/status: %w", name, err)
	}
	return t, nil
}

func (t *task) close() {
	for _, fd := range []int{t.dir, t.status, t.cgroup} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (t *task) readStatus() (proc.Status, error) {
	text, err := t.read(t.status)
	if err != nil {
		return proc.Status{}, fmt.Errorf("read /proc/%d/status: %w", t.tid, err)
	}
	st, err := proc.ParseStatus(text)
	if err == nil && st.PID != t.tid {
		err = fmt.Errorf("it is of thread %d", st.PID)
	}
	if err != nil {
		return proc.Status{}, fmt.Errorf("/proc/%d/status: %w", t.tid, err)
	}
	return st, nil
}

const maxText = 1 << 20 // 65,536 groups of 11 characters fit

// read returns a whole file of procfs, in a buffer that the next read reuses.
// Each of these files is one record, made anew by a read at offset 0, so that a
// read that does not fill the buffer has all of it, as of one moment.
func (t *task) read(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, t.buf, 0)
		if err != nil {
			return nil, err
		}
		if n < len(t.buf) {
			return t.buf[:n], nil
		}
		if len(t.buf) >= maxText {
			return nil, fmt.Errorf("longer than %d bytes", maxText)
		}
		t.buf = make([]byte, 4*len(t.buf))
	}
}

func openAt(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// readLink returns the text of a link in buf; one that fills it may be longer.
func readLink(dir int, name string, buf []byte) ([]byte, error) {
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return nil, err
	}
	if n == len(buf) {
		return nil, unix.ENAMETOOLONG
	}
	return buf[:n], nil
}
