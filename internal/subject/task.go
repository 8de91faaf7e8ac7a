package subject

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// task is a handle on one task, not on its number: a descriptor of /proc/TID
// fails for ever once the task is gone, whoever has the number then. A look has
// its handle to itself.
type task struct {
	tid                 int
	dir, status, cgroup int
	buf                 []byte

	// What the last look made of what it read: compared, so that what is as
	// before is not made again.
	link         string
	capabilities []string
	mask         uint64
	cgroupText   []byte
	unit         string
	unitErr      error

	exe  file // what the link led to; zero if that is not known
	seen Subject
	at   time.Time // of seen
}

// recent tells whether what was seen is not older than that, and the
// executable the same file still, unchanged.
func (t *task) recent(age time.Duration) bool {
	if age == 0 || t.exe == (file{}) || time.Since(t.at) >= age {
		return false
	}
	f, err := statAt(t.dir, "exe", 0)
	return err == nil && f == t.exe
}

var errClosed = errors.New("the reader is closed")

// take returns a handle on a task that has, or had, the number.
func (r *Reader) take(tid int) (*task, error) {
	if r.closed {
		return nil, errClosed
	}
	if tid <= 0 {
		// Seccomp shows a thread outside of the reader's PID namespace as 0.
		return nil, fmt.Errorf("no thread has the id %d in this PID namespace", tid)
	}
	if t := r.cached(tid); t != nil {
		return t, nil
	}
	return r.openTask(tid)
}

// status returns the status of the task that has the number now, and a handle
// on it. The one given is closed if that is another task's.
func (r *Reader) status(t *task) (*task, status, error) {
	st, err := t.readStatus()
	if err == nil {
		return t, st, nil
	}
	t.close() // ESRCH: the number is free, or another task's
	if t, err = r.openTask(t.tid); err != nil {
		return nil, status{}, err
	}
	if st, err = t.readStatus(); err != nil {
		t.close()
		return nil, status{}, err
	}
	return t, st, nil
}

// cached takes a handle out of the cache.
func (r *Reader) cached(tid int) *task {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.tasks) - 1; i >= 0; i-- {
		if t := r.tasks[i]; t.tid == tid {
			r.tasks = slices.Delete(r.tasks, i, i+1)
			return t
		}
	}
	return nil
}

// give puts a handle into the cache, and closes the one that it is too many.
func (r *Reader) give(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.tasks, func(other *task) bool { return other.tid == t.tid }) {
		t.close() // two looks at one thread at once
		return
	}
	if len(r.tasks) == maxTasks {
		r.tasks[0].close()
		r.tasks = slices.Delete(r.tasks, 0, 1)
	}
	r.tasks = append(r.tasks, t)
}

func (r *Reader) openTask(tid int) (*task, error) {
	name := strconv.Itoa(tid)
	dir, err := unix.Openat(r.proc, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/%s: %w", name, err)
	}
	t := &task{tid: tid, dir: dir, status: -1, cgroup: -1, buf: make([]byte, unix.PathMax)}
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

func (t *task) readStatus() (status, error) {
	text, err := t.read(t.status)
	if err != nil {
		return status{}, fmt.Errorf("read /proc/%d/status: %w", t.tid, err)
	}
	st, err := parseStatus(text)
	if err == nil && st.pid != t.tid {
		err = fmt.Errorf("it is of thread %d", st.pid)
	}
	if err != nil {
		return status{}, fmt.Errorf("/proc/%d/status: %w", t.tid, err)
	}
	return st, nil
}

const maxText = 1 << 20 // 65,536 groups of 11 characters fit

// read returns a whole file of procfs, in a buffer that the next read reuses.
// Each of these files is one record, made anew by a read at offset 0, so that a
// read that does not fill the buffer has it all, and of one moment.
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
