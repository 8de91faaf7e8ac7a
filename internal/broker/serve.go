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
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// server answers the calls of one workload.
type server struct {
	*Broker
	listener *notify.Listener
	workload *Workload
	sessions *table
	subjects *subject.Share
	tag      uint64       // of the listener, in the hub
	slow     atomic.Int64 // until then its calls are handed over as slow

	mu       sync.Mutex // guards the fields below
	calls    [notify.SlotCount]bool
	underWay int
	stuck    int  // of the calls under way
	deaf     bool // its listener is left out until a stuck call returns
	over     bool
	err      error
	ended    chan struct{} // closed when it is over, and no call is under way
}

// begin counts a call and returns its slot, or false if it may not begin.
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
	s.signalEnd()
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
	s.signalEnd()
}

// signalEnd signals that nothing is left to do. The server is locked.
func (s *server) signalEnd() {
	if s.over && s.underWay == 0 {
		close(s.ended)
	}
}

// noteStuck counts the stuck calls. The listener of a workload with the most
// allowed is left out until one of them returns.
func (s *server) noteStuck(change, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck += change
	if deaf := s.stuck >= most; deaf != s.deaf && !s.over {
		s.deaf = deaf
		events := uint32(unix.EPOLLIN)
		if deaf {
			events = 0 // epoll reports its end even so
		}
		s.hub.control(unix.EPOLL_CTL_MOD, s.listener.FD(), events, s.tag)
	}
}

// worker answers calls, of any workload.
type worker struct {
	// since is when its call began, in nanoseconds since start; 0 while it
	// waits for one, and negative once another one waits in its place.
	since  atomic.Int64
	server atomic.Pointer[server]
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
	for relieved := false; !relieved; {
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
			relieved = b.take(w, it.s, buf)
		}
		b.o.Pairs.collect()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.workers, w)
}

// take receives the waiting call and answers it. It releases the hub's lock in
// between. It reports whether another worker has replaced this one.
func (b *Broker) take(w *worker, s *server, buf notify.Buffer) (relieved bool) {
	slot, ok := s.begin()
	if !ok {
		b.hub.waiting.Unlock()
		return false
	}
	defer s.finish(slot)
	n, err := s.listener.Receive(buf)
	if err == nil {
		s.workload.slots.Set(slot, n.ID)
	}
	b.hub.waiting.Unlock()
	switch {
	case errors.Is(err, notify.ErrGone):
		return false
	case err != nil:
		s.end(err)
		return false
	}
	start := now()
	w.server.Store(s)
	w.since.Store(start)
	b.steward.stir()
	if s.slow.Load() > start {
		b.handOver(w)
	}
	s.handle(w, &n, start)
	s.workload.slots.Set(slot, 0)
	if end := now(); end-start > int64(stuckAfter) {
		s.slow.Store(end + int64(slowFor))
	}
	if w.since.Swap(0) > 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.noteStuck(-1, b.mostStuck())
	return true
}

var started = time.Now()

// now is monotonic and never 0.
func now() int64 { return int64(time.Since(started)) | 1 }

// relieve replaces stuck workers: they leave when their call is done.
func (b *Broker) relieve() (busy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.workers {
		switch since := w.since.Load(); {
		case since == 0:
			continue
		case since > 0 && now()-since > int64(stuckAfter):
			b.replace(w, since)
		}
		busy = true
	}
	return busy
}

// handOver has another worker wait in the place of one whose call will take
// long.
func (b *Broker) handOver(w *worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replace(w, w.since.Load())
}

// replace has another worker wait in the place of one whose long call began at
// since, once. The broker is locked.
func (b *Broker) replace(w *worker, since int64) {
	if since > 0 && w.since.CompareAndSwap(since, -since) {
		b.startWorker()
		w.server.Load().noteStuck(+1, b.mostStuck())
	}
}

// mostStuck bounds the stuck calls of a workload. Every workload can have one,
// however many there are: none waits for a worker. The broker is locked.
func (b *Broker) mostStuck() int {
	if len(b.workers) > manyWorkers {
		return 1
	}
	return maxStuck
}

// handle answers one call. Whatever happens, the caller gets an answer, and no
// error opens anything.
func (s *server) handle(w *worker, n *notify.Notification, start int64) {
	c := call{n: n, handOver: func() { s.Broker.handOver(w) }}
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
		return s.make(c, true)
	}
	return fail(unix.ENOSYS)
}
