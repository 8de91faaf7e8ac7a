package broker

import "testing"

// However many calls are stuck, each workload can have one: no workload waits
// for a worker.
func TestMostStuck(t *testing.T) {
	b := &Broker{workers: map[*worker]bool{}}
	for range manyWorkers {
		b.workers[&worker{}] = true
	}
	if n := b.mostStuck(); n != maxStuck {
		t.Errorf("with %d workers: %d, want %d", len(b.workers), n, maxStuck)
	}
	b.workers[&worker{}] = true
	if n := b.mostStuck(); n != 1 {
		t.Errorf("with %d workers: %d, want 1", len(b.workers), n)
	}
}

// A worker is replaced once for a call, and not at all between calls.
func TestReplacedOnce(t *testing.T) {
	w := &worker{}
	b := &Broker{workers: map[*worker]bool{}}
	b.replace(w, w.since.Load())
	w.since.Store(5)
	b.replace(w, 4) // another call has begun since
	if w.since.Load() != 5 || len(b.workers) != 0 {
		t.Errorf("since %d, %d workers", w.since.Load(), len(b.workers))
	}
}
