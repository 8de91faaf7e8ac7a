package keeper

import (
	"sync"
	"time"
)

// limiter lets one line through in a second: who is refused cannot fill the log.
type limiter struct {
	mu     sync.Mutex
	last   time.Time
	unsaid int
}

func (l *limiter) allow() (unsaid int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= time.Second {
		l.last, unsaid, l.unsaid = now, l.unsaid, 0
		return unsaid, true
	}
	l.unsaid++
	return 0, false
}
