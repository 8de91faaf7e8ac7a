package broker

import (
	"sync/atomic"
	"time"
)

// One goroutine receives and answers one call after the other: handing calls to
// others would double the time of each. A call that takes long must not delay
// the rest: it loads a module, hashes a large file, or waits for memory. A call
// known to take long is handed over first. For the others, the steward looks
// now and then, while there is work, and has another worker wait in the place
// of a stuck one. The further calls of that workload are then handed over for a
// while.

const (
	// A call counts as stuck after stuckAfter at the earliest, and twice that
	// at the latest.
	stuckAfter = 10 * time.Millisecond
	// slowFor is for how long a workload with a stuck call is expected to have
	// others: it can delay the rest once in that time. It is not longer, since
	// on a busy machine any call may take that long, and handing over is
	// expensive.
	slowFor = 500 * time.Millisecond
)

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

// stir wakes the steward if it sleeps, and otherwise costs nothing.
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
				// A call that began meanwhile saw the steward awake.
				if st.relieve() {
					st.stir()
				}
			}
		}
	}
}

// calm is the number of idle looks after which the steward sleeps.
const calm = 100
