// Package telemetry reports the broker's work: decisions as lines of JSON, and
// counts and times for Prometheus.
//
// Its input comes from workloads that may be hostile. None can make a decision
// wait, make a line of its own, hide a decision without a count, or make memory
// or the number of time series grow without bound.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// LogOptions configure a log. The zero value is the default.
type LogOptions struct {
	// DeniedOnly leaves out allowed requests. They do not count as dropped.
	DeniedOnly bool
	// Subject limits the lines of one executable under one uid in one container
	// with one verdict: a burst at once, then one in each interval. The zero
	// value is 20 and a second.
	Subject Limit
	// Container limits the lines of one container with one verdict, since
	// subjects can be made up without end. The zero value is 100 and 100 ms.
	Container Limit
	// Queue bounds the lines that wait for the writer; 1,024 if 0.
	Queue int
}

// Limit lets a burst of lines through at once, then one in each interval.
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
// the events; the error of Close has those that were not reported.
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
	record  plan.Record
	what    string // of a failure
	err     error
	dropped uint64
}

// NewLog writes to w, a whole line at a time, from one goroutine: a writer that
// blocks delays only Flush and Close.
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

// Decided implements plan.Observer.
func (l *Log) Decided(r plan.Record) {
	e := entry{kind: denied, record: r}
	if r.Allowed {
		e.kind = allowed
		if l.o.DeniedOnly {
			return
		}
	}
	l.offer(&e)
}

// Failed implements plan.Observer.
func (l *Log) Failed(what string, err error) {
	l.offer(&entry{kind: failed, what: what, err: err})
}

// Answered implements plan.Observer. It logs nothing.
func (*Log) Answered(string, time.Duration) {}

// Sessions implements plan.Observer. It logs nothing.
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

// Flush writes the queued lines, and the counts of dropped lines so far.
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

// Untold is the number of events neither written nor counted in the log so far.
func (l *Log) Untold() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen - l.told
}

// Close flushes and ends the log; later events are not logged. The error says
// how many were not reported, because the writer failed or did not end before
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
