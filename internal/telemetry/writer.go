package telemetry

import "time"

// writer is the goroutine of a log: it alone waits for the output.
type writer struct {
	log *Log
	out *liner
	// lost counts the events that could not be written, err says why.
	lost uint64
	err  error
}

func (w *writer) run() {
	defer close(w.log.done)
	var tick <-chan time.Time // while any source is kept
	for {
		select {
		case e := <-w.log.queue:
			w.entry(&e)
			if tick == nil {
				tick = time.After(quiet)
			}
		case <-tick:
			if tick = nil; w.sweep(false) {
				tick = time.After(quiet)
			}
		case written := <-w.log.flush:
			w.drain()
			close(written)
		case <-w.log.stop:
			w.drain()
			return
		}
	}
}

// drain writes everything queued by now, and all counts.
func (w *writer) drain() {
	for range len(w.log.queue) {
		e := <-w.log.queue
		w.entry(&e)
	}
	w.sweep(true)
	w.recover() // what the sweep could not write
}

func (w *writer) entry(e *entry) {
	w.recover()
	w.account(w.out.entry(e), 1+e.dropped)
}

// sweep reports whether anything is left to sweep.
func (w *writer) sweep(all bool) bool {
	w.log.mu.Lock()
	list := w.log.keeper.sweep(time.Now(), all)
	more := len(w.log.keeper.groups) > 0
	w.log.mu.Unlock()
	w.recover()
	for i := range list {
		w.account(w.out.summary(&list[i]), list[i].dropped)
	}
	return more || w.lost > 0
}

// recover reports the events that could not be written, if it can write by now.
func (w *writer) recover() {
	if w.lost == 0 {
		return
	}
	s := summary{groupKey: groupKey{kind: kinds}, dropped: w.lost, uid: -1, err: w.err}
	if w.out.summary(&s) == nil {
		w.tell(w.lost)
		w.lost, w.err = 0, nil
	}
}

func (w *writer) account(err error, n uint64) {
	if err != nil {
		w.lost, w.err = w.lost+n, err
		return
	}
	w.tell(n)
}

func (w *writer) tell(n uint64) {
	w.log.mu.Lock()
	w.log.told += n
	w.log.mu.Unlock()
}
