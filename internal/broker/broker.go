// Package broker decides the calls of AF_ALG that a filter traps, and carries
// out what the plan allows. It is the supervisor of seccomp(2).
//
// A supervisor cannot check an address in the caller's memory and then let the
// call go on: the memory may change in between. So a workload never holds a
// parent socket, the one that is bound:
//
//   - socket(AF_ALG) returns a placeholder, one end of a Unix socket pair. The
//     broker keeps the other end, and the real parent.
//   - bind on a placeholder: the broker copies the address once, decides, and
//     binds its own copy on the parent.
//   - setsockopt(SOL_ALG) on a placeholder: the broker decides again, and sets
//     the key, or the size of the authentication tag, on the parent.
//   - accept without an address on a placeholder: the broker decides again,
//     and returns the operation socket itself. Data flows without the broker.
//   - When the last copy of the placeholder is closed, the kept end hangs up,
//     and the parent is closed.
//
// On any other descriptor these calls go on in the kernel. That is safe
// whatever the caller does meanwhile, because nothing in the workload is a
// parent socket.
//
// The broker denies whatever it cannot establish: a dead helper, an unreadable
// address, a full table.
package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// Options configure a broker.
type Options struct {
	Subjects *subject.Reader
	Pairs    *Pairs
	Sockets  *Sockets      // for filters that trap socketcall; may be nil
	Observer plan.Observer // receives every decision; may be nil
	// Used receives who bound, keyed and accepted, when an operation socket is
	// handed out; may be nil.
	Used func([]Caller, afalg.Algorithm)
	// UserName finds the name of a uid, "" if there is none; may be nil.
	UserName func(uid uint32) string
	// EveryDigest computes the digest of every caller, for the records, and not
	// only where a rule of the workload asks for it.
	EveryDigest bool
	// Sessions bounds the sessions of a workload at a time; 1,024 if 0.
	Sessions int
	// Crypto carries out the allowed calls; the kernel if nil.
	Crypto Crypto
}

// Recent is for how long facts of a caller may be reused, except its
// executable. It covers the calls of a session, which come one after the other.
const Recent = 5 * time.Millisecond

// Processors is GOMAXPROCS for a broker's process. One serves; with a second
// one idle, the Go runtime does not take the first away during each longer
// system call. More would look for work and find none.
const Processors = 2

const (
	defaultSessions = 1024
	// maxStuck bounds the calls of one workload that are stuck at a time: in
	// the loading of a module, in hashing, or in memory that does not come.
	// Each takes a worker. Above manyWorkers, a workload gets one.
	maxStuck    = 4
	manyWorkers = 512
)

// Broker serves any number of listeners.
type Broker struct {
	o       Options
	hub     *hub
	steward steward
	working sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	workers map[*worker]bool
}

// New makes a broker.
func New(o Options) (*Broker, error) {
	if o.Subjects == nil || o.Pairs == nil {
		return nil, fmt.Errorf("a broker needs subjects and pairs")
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Used == nil {
		o.Used = func([]Caller, afalg.Algorithm) {}
	}
	if o.UserName == nil {
		o.UserName = func(uint32) string { return "" }
	}
	if o.Sessions == 0 {
		o.Sessions = defaultSessions
	}
	if o.Crypto == nil {
		o.Crypto = Kernel{}
	}
	h, err := newHub()
	if err != nil {
		return nil, err
	}
	b := &Broker{o: o, hub: h, workers: map[*worker]bool{}}
	b.steward.init(b.relieve)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.startWorker()
	return b, nil
}

// Close frees what the broker holds. It must not serve a workload any more.
func (b *Broker) Close() {
	close(b.steward.done)
	b.hub.interrupt()
	b.working.Wait()
	b.hub.close()
}

// Workload is the processes under one listener.
type Workload struct {
	Name  string // in records
	plan  atomic.Pointer[plan.Plan]
	saved []Saved // before and after Serve
	slots *notify.Slots
}

// NewWorkload names a workload. Its plan holds its grants and nothing else.
func NewWorkload(name string, p *plan.Plan) *Workload {
	w := &Workload{Name: name}
	w.SetPlan(p)
	return w
}

// SetPlan replaces the plan. Bound sessions stay bound; each accept asks the
// new plan.
func (w *Workload) SetPlan(p *plan.Plan) { w.plan.Store(p) }

// Track writes down the calls under way, so that the successor of a killed
// broker can end them (notify.Listener.FailLost).
func (w *Workload) Track(slots *notify.Slots) { w.slots = slots }

// ErrInterrupted means that serving a workload was stopped, and did not end.
var ErrInterrupted = errors.New("interrupted")

// Serve answers the calls of a workload until no process of it is left (nil),
// or ctx ends (ErrInterrupted). It does not close the listener: calls that wait
// then are answered by the next one to serve it, or fail when it closes.
// Sessions end with the workload. Those open at an interruption are for Save,
// and must be closed or restored.
func (b *Broker) Serve(ctx context.Context, l *notify.Listener, w *Workload) error {
	s := &server{
		Broker: b, listener: l, workload: w,
		sessions: newTable(b.o.Sessions, b.o.Observer), ended: make(chan struct{}),
	}
	s.subjects = b.o.Subjects.Share(s.needsDigest)
	defer s.subjects.Close()
	s.restore(w.Save())
	defer s.leave()
	b.hub.name(&s.tag, item{s: s})
	if err := b.hub.add(l.FD(), unix.EPOLLIN, s.tag); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { s.end(ErrInterrupted) })()
	<-s.ended
	return s.err
}

// leave closes the sessions of a workload that has ended, or saves those of one
// that has not.
func (s *server) leave() {
	if s.err == ErrInterrupted {
		s.workload.saved = s.sessions.take(s.hub)
	}
	s.sessions.clear(s.hub)
}
