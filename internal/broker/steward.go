package broker

import (
	"sync"
	"sync/atomic"
	"time"
)

// A workload is served by one goroutine, which receives and answers one call
// after the other: handing calls to others would double the time of each. A
// call that takes long, because a module is loaded, a large file is hashed or
// memory does not come, must not hold up the rest of the workload. The steward
// looks now and then, while there is work at all, and has another goroutine
// receive in the place of one that is stuck.

// stuckAfter is when a call counts as stuck, at the earliest; twice that at
// the latest.
const stuckAfter = 50 * time.Millisecond

type steward struct {
	mu      sync.Mutex
	servers map[*server]bool
	asleep  atomic.Bool
	wake    chan struct{}
	done    chan struct{}
}

func (st *steward) init() {
	st.servers = map[*server]bool{}
	st.wake, st.done = make(chan struct{}, 1), make(chan struct{})
	st.asleep.Store(true)
	go st.run()
}

func (st *steward) stop() { close(st.done) }

func (st *steward) add(s *server) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.servers[s] = true
}

func (st *steward) remove(s *server) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.servers, s)
}

// stir wakes the steward if it sleeps. It costs nothing otherwise.
func (st *steward) stir() {
	if st.asleep.Load() && st.asleep.CompareAndSwap(true, false) {
		st.wake <- struct{}{}
	}
}

func (st *steward) run() {
	ticker := time.NewTicker(stuckAfter)
	ticker.Stop()
	idle := 0
	for {
		select {
		case <-st.done:
			ticker.Stop()
			return
		case <-st.wake:
			ticker.Reset(stuckAfter)
			idle = 0
		case <-ticker.C:
			if st.relieve() {
				idle = 0
			} else if idle++; idle > 1 {
				ticker.Stop()
				st.asleep.Store(true)
				// A call that began meanwhile saw a steward awake.
				if st.relieve() {
					st.stir()
				}
			}
		}
	}
}

// relieve gives every stuck worker a stand-in; it tells whether any was busy.
func (st *steward) relieve() (busy bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for s := range st.servers {
		busy = s.relieve() || busy
	}
	return busy
}
