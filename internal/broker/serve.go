package broker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// server answers the calls of one workload.
type server struct {
	*Broker
	listener *notify.Listener
	workload *Workload
	sessions *table
	tag      uint64 // of the listener, in the hub

	mu       sync.Mutex // guards what follows
	calls    [notify.SlotCount]bool
	underWay int
	stuck    int // of these
	over     bool
	err      error
	ended    chan struct{} // closed when it is over, and no call is under way
}

// begin counts a call, and returns its slot; false if there is to be none.
func (s *server) begin() (slot int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot = slices.Index(s.calls[:], false)
	if s.over || slot < 0 {
		return 0, false
	}
	s.calls[slot] = true
	s.underWay++
	return slot, true
}

func (s *server) finish(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[slot] = false
	s.underWay--
	s.settle()
}

// end stops the serving, for that reason.
func (s *server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.err = true, err
	s.hub.forget(s.tag)
	s.hub.control(unix.EPOLL_CTL_DEL, s.listener.FD(), 0, 0)
	s.settle()
}

// settle tells when nothing is left to do. The server is locked.
func (s *server) settle() {
	if s.over && s.underWay == 0 {
		close(s.ended)
	}
}

// noteStuck counts the calls that do not come back. A workload that has too many
// is not listened to until one of them does.
func (s *server) noteStuck(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.stuck >= maxStuck
	s.stuck += change
	if after := s.stuck >= maxStuck; after != before && !s.over {
		events := uint32(unix.EPOLLIN)
		if after {
			events = 0 // its end is told all the same
		}
		s.hub.control(unix.EPOLL_CTL_MOD, s.listener.FD(), events, s.tag)
	}
}

// worker answers calls, of whatever workload.
type worker struct {
	since    atomic.Int64 // when its call began, in nanoseconds since start; 0 while it waits for one
	server   atomic.Pointer[server]
	relieved atomic.Bool // another one waits in its place
}

// startWorker adds a worker. The broker is locked.
func (b *Broker) startWorker() {
	w := &worker{}
	b.workers[w] = true
	b.working.Add(1)
	go b.work(w)
}

func (b *Broker) work(w *worker) {
	defer b.working.Done()
	var buf notify.Buffer
	for !w.relieved.Load() {
		b.hub.waiting.Lock()
		it, events, ok := b.hub.wait()
		switch {
		case !ok:
			b.hub.waiting.Unlock()
			return
		case it.inode != 0:
			it.s.sessions.closed(b.hub, it.inode)
			b.hub.waiting.Unlock()
		case events&unix.EPOLLIN == 0:
			it.s.end(nil)
			b.hub.waiting.Unlock()
		default:
			if buf == nil {
				buf = it.s.listener.Buffer()
			}
			b.take(w, it.s, buf)
		}
		b.o.Pairs.settle()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.workers, w)
}

// take receives the call that waits, and answers it. The hub's lock is given
// back in between.
func (b *Broker) take(w *worker, s *server, buf notify.Buffer) {
	slot, ok := s.begin()
	if !ok {
		b.hub.waiting.Unlock()
		return
	}
	defer s.finish(slot)
	n, err := s.listener.Receive(buf)
	if err == nil {
		s.workload.slots.Set(slot, n.ID)
	}
	b.hub.waiting.Unlock()
	switch {
	case errors.Is(err, notify.ErrGone):
		return
	case err != nil:
		s.end(err)
		return
	}
	start := now()
	w.server.Store(s)
	w.since.Store(start)
	b.steward.stir()
	s.handle(&n, start)
	s.workload.slots.Set(slot, 0)
	w.since.Store(0)
	if w.relieved.Load() {
		s.noteStuck(-1)
	}
}

var started = time.Now()

// now is monotonic and never 0.
func now() int64 { return int64(time.Since(started)) | 1 }

// relieve has stuck workers replaced, as far as the limit goes: they leave
// when their call is done.
func (b *Broker) relieve() (busy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.workers {
		since := w.since.Load()
		if since == 0 {
			continue
		}
		busy = true
		if now()-since > int64(stuckAfter) && len(b.workers) < maxWorkers && !w.relieved.Swap(true) {
			w.server.Load().noteStuck(+1)
			b.startWorker()
		}
	}
	return busy
}

// handle answers one call. Whatever happens, the caller gets an answer, and
// none of them opens anything.
func (s *server) handle(n *notify.Notification, start int64) {
	c := call{n: n}
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
