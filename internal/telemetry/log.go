// Package telemetry tells what the broker does: decisions as lines of JSON, and
// counts and times for Prometheus.
//
// What it is told comes from workloads that may be hostile. None can make a
// decision wait, make a line of its own, hide a decision without a count, or
// make memory or the number of time series grow without bound.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/broker"
)

// LogOptions are what a log is made of. The zero value is the default.
type LogOptions struct {
	// DeniedOnly leaves out what was allowed. It is not counted as dropped.
	DeniedOnly bool
	// Subject limits the lines of one executable under one uid in one container
	// with one verdict: so many at once, then one each so often. 20 and a second
	// if zero.
	Subject Limit
	// Container limits the lines of one container with one verdict, so that
	// subjects may be made up without end: 100 and 100 ms if zero.
	Container Limit
	// Queue is how many lines may wait for the writer; 1,024 if 0.
	Queue int
}

// Limit lets so many lines through at once, then one each so often.
type Limit struct {
	Burst int
	Every time.Duration
}

func (l Limit) or(other Limit) Limit {
	if l.Burst <= 0 {
		l.Burst = other.Burst
	}
	if l.Every <= 0 {
		l.Every = other.Every
	}
	return l
}

// Log writes a line of JSON for each decision and each failure.
//
// A line that the limits hold back, or that finds the queue full, is counted:
// "dropped" in the next line of the same subject and verdict, or in a line
// "dropped" of its container once the flood is over. Lines and counts add up to
// what happened; what is not told when the log is closed is in the error of
// Close.
type Log struct {
	o     LogOptions
	queue chan entry
	flush chan chan struct{}
	stop  chan struct{}
	done  chan struct{}

	mu     sync.Mutex
	closed bool
	seen   uint64 // decisions and failures
	told   uint64 // of these, in lines or counts that were written
	keeper keeper
}

// entry is a line to be written.
type entry struct {
	kind    kind
	record  broker.Record
	what    string // of a failure
	err     error
	dropped uint64
}

// NewLog writes to w, a whole line at a time, from one goroutine: a writer that
// blocks makes nobody wait but Flush and Close.
func NewLog(w io.Writer, o LogOptions) *Log {
	o.Subject = o.Subject.or(Limit{20, time.Second})
	o.Container = o.Container.or(Limit{100, 100 * time.Millisecond})
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	l := &Log{
		o:     o,
		queue: make(chan entry, o.Queue),
		flush: make(chan chan struct{}),
		stop:  make(chan struct{}), done: make(chan struct{}),
		keeper: newKeeper(o.Subject, o.Container),
	}
	go (&writer{log: l, out: newLiner(w)}).run()
	return l
}

// Decided implements broker.Observer.
func (l *Log) Decided(r broker.Record) {
	e := entry{kind: denied, record: r}
	if r.Allowed {
		e.kind = allowed
		if l.o.DeniedOnly {
			return
		}
	}
	l.offer(&e)
}

// Failed implements broker.Observer.
func (l *Log) Failed(what string, err error) {
	l.offer(&entry{kind: failed, what: what, err: err})
}

// Answered implements broker.Observer. It logs nothing.
func (*Log) Answered(string, time.Duration) {}

// Sessions implements broker.Observer. It logs nothing.
func (*Log) Sessions(int) {}

// offer queues a line, or counts it as dropped.
func (l *Log) offer(e *entry) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if e.record.Time.IsZero() {
		e.record.Time = now
	}
	l.seen++
	s := l.keeper.find(e)
	if s.admit(now) {
		e.dropped = s.dropped
		select {
		case l.queue <- *e:
			s.dropped = 0
			return
		default:
		}
	}
	s.drop(now)
}

// Flush writes what is queued, and what was dropped so far.
func (l *Log) Flush(ctx context.Context) error {
	written := make(chan struct{})
	select {
	case l.flush <- written:
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush the log: %w", ctx.Err())
	}
	select {
	case <-written:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush the log: %w", ctx.Err())
	}
}

// Untold is how much is neither written nor counted in the log so far.
func (l *Log) Untold() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen - l.told
}

// Close flushes and ends the log; what happens later is not logged. The error
// says how much was never told, because the writer failed or did not end before
// the context did. A writer that still blocks then keeps its goroutine.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		close(l.stop)
	}
	select {
	case <-l.done:
	case <-ctx.Done():
	}
	if lost := l.Untold(); lost > 0 {
		return fmt.Errorf("close the log: %d decisions and failures were neither written nor counted in it", lost)
	}
	return nil
}
