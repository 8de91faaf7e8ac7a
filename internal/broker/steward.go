package broker

import (
	"sync/atomic"
	"time"
)

// One goroutine receives and answers one call after the other: handing calls to
// others would double the time of each. A call that takes long, because a module
// is loaded, a large file is hashed or memory does not come, must not hold up
// the rest. The steward looks now and then, while there is work at all, and has
// another worker wait in the place of one that is stuck.

// stuckAfter is when a call counts as stuck, at the earliest; twice that at
// the latest.
const stuckAfter = 50 * time.Millisecond

type steward struct {
	relieve func() (busy bool)
	asleep  atomic.Bool
	wake    chan struct{}
	done    chan struct{}
}

func (st *steward) init(relieve func() bool) {
	st.relieve = relieve
	st.wake, st.done = make(chan struct{}, 1), make(chan struct{})
	st.asleep.Store(true)
	go st.run()
}

func (st *steward) stop() { close(st.done) }

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
			} else if idle++; idle > calm {
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

// calm is after how many looks that found nothing to do the steward sleeps.
const calm = 20
