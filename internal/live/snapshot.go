package live

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// Snapshot is every process of a host.
type Snapshot struct {
	Processes []Process // by PID
	// Unread lists the processes that could not be asked: nothing is known of
	// them.
	Unread []Unread
	// Took is how long the reading took.
	Took time.Duration
}

// Unread is a process that could not be asked, and why.
type Unread struct {
	PID     int
	Command string
	Err     error
}

// All reads the filters of every process of the host except kernel threads and
// zombies. Equal stacks are shared between processes. The error is about the
// host as a whole: that of a process is in Unread.
func All() (Snapshot, error) { return all(newReader()) }

// Visible is All for a caller that may not read filters: the processes under one are
// in Unread then, and the others are known to be under none.
func Visible() (Snapshot, error) {
	r := newReader()
	r.visible = true
	return all(r)
}

func all(r *reader) (h Snapshot, err error) {
	start := time.Now()
	onThread(func() { h, err = r.all() })
	h.Took = time.Since(start)
	return h, err
}

// all gives each thread less time to stop than Read does: many may not stop.
func (r *reader) all() (h Snapshot, err error) {
	r.total = 200 * time.Millisecond
	pids, err := proc.Numbers("/proc")
	if err != nil {
		return h, generalErrorf("list the processes: %w", err)
	}
	for _, pid := range pids {
		s, err := readStatus(procPath(pid))
		if errors.Is(err, errGone) || err == nil && s.usable(pid) != nil {
			continue
		}
		var p Process
		if err == nil {
			p, err = r.process(pid)
		}
		var general *generalError
		switch {
		case err == nil:
			h.Processes = append(h.Processes, p)
		case errors.Is(err, errGone):
		case errors.As(err, &general) && !r.visible:
			return h, fmt.Errorf("read the filters of process %d: %w", pid, err)
		default:
			h.Unread = append(h.Unread, Unread{pid, string(s.Name), err})
		}
	}
	if len(h.Processes) == 0 {
		return h, generalErrorf("no process is to be seen in /proc of process %d", os.Getpid())
	}
	return h, nil
}
