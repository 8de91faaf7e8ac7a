package broker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// worker receives calls and answers them.
type worker struct {
	slot     int          // of the workload's slots
	since    atomic.Int64 // when its call began, in nanoseconds since start; 0 while it waits for one
	relieved atomic.Bool  // another one receives in its place
}

// start adds a worker. The server is locked.
func (s *server) start() {
	w := &worker{slot: s.freeSlot()}
	s.workers[w] = true
	go s.work(w)
}

// freeSlot finds a slot that no worker has; there are as many as workers may be.
func (s *server) freeSlot() int {
	var taken [maxWorkers]bool
	for w := range s.workers {
		taken[w.slot] = true
	}
	return slices.Index(taken[:], false)
}

func (s *server) work(w *worker) {
	err := s.serve(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	delete(s.workers, w)
	if len(s.workers) == 0 {
		close(s.ended)
	}
}

// serve deals with events until there are no more, or another worker took
// over.
func (s *server) serve(w *worker) error {
	buf := s.listener.Buffer()
	for !w.relieved.Load() {
		s.poller.mu.Lock()
		e, err := s.poller.wait()
		if err != nil || e.kind == eventEnded || e.kind == eventStop {
			s.poller.mu.Unlock()
			return endOf(e, err)
		}
		if e.kind == eventClosed {
			s.sessions.closed(e.inode)
			s.poller.mu.Unlock()
			continue
		}
		n, err := s.listener.Receive(buf)
		if err == nil {
			s.workload.slots.Set(w.slot, n.ID)
		}
		s.poller.mu.Unlock()
		if errors.Is(err, notify.ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		start := now()
		w.since.Store(start)
		s.steward.stir()
		s.handle(&n, start)
		s.workload.slots.Set(w.slot, 0)
		w.since.Store(0)
	}
	return nil
}

func endOf(e event, err error) error {
	if err == nil && e.kind == eventStop {
		return ErrInterrupted
	}
	return err
}

var started = time.Now()

// now is monotonic and never 0.
func now() int64 { return int64(time.Since(started)) | 1 }

// relieve has stuck workers replaced, as far as the limit goes: they leave
// when their call is done.
func (s *server) relieve() (busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.workers {
		since := w.since.Load()
		if since == 0 {
			continue
		}
		busy = true
		if now()-since > int64(stuckAfter) && !w.relieved.Load() && len(s.workers) < maxWorkers {
			w.relieved.Store(true)
			s.start()
		}
	}
	return busy
}

// handle answers one call. Whatever happens, the caller gets an answer, and
// none of them opens anything.
func (s *server) handle(n *notify.Notification, start int64) {
	c := call{n: n, start: start}
	answered := false
	defer func() {
		if r := recover(); r != nil {
			s.o.Observer.Failed("panic", fmt.Errorf("%v\n%s", r, debug.Stack()))
		}
		if !answered {
			s.listener.Fail(n.ID, unix.ENOSYS)
		}
	}()
	r := s.perform(&c)
	answered = true
	if err := s.answer(n.ID, r); err != nil && !errors.Is(err, notify.ErrGone) {
		s.o.Observer.Failed("answer", err)
	}
	s.o.Observer.Answered(c.op.String(), time.Duration(now()-start))
}

func (s *server) answer(id uint64, r reply) error {
	switch r.kind {
	case replyDone:
		return nil
	case replyContinue:
		return s.listener.Continue(id)
	case replyValue:
		return s.listener.Return(id, r.value)
	}
	return s.listener.Fail(id, r.errno)
}

// perform carries out a call as far as it is allowed.
func (s *server) perform(c *call) reply {
	if !c.decode() {
		s.o.Observer.Failed("unknown call", fmt.Errorf("call %d of architecture %#x: the filter is not one of ours, or of another version", c.n.Data.Nr, c.n.Data.Arch))
		return fail(unix.ENOSYS)
	}
	if c.n.TID == 0 { // not in this process's PID namespace
		s.o.Observer.Failed("foreign process", errors.New("a process that this PID namespace does not see asked: it gets nothing"))
		return s.refuse(c)
	}
	if c.op == opSocketcall {
		if r, done := s.unwrap(c); done {
			return r
		}
	}
	switch c.op {
	case opSocket:
		return s.socket(c)
	case opBind:
		return s.bind(c)
	case opSetsockopt:
		return s.setsockopt(c)
	case opAccept:
		return s.accept(c, 0)
	case opAccept4:
		return s.accept(c, int32(c.args[3]))
	case opSocketpair:
		return s.socketpair(c)
	}
	return fail(unix.ENOSYS)
}
