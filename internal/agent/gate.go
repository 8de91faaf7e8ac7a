package agent

import (
	"sync"
	"time"
)

// gate counts the peers inside. One user who is not trusted gets a part of the
// room, and all of those together half.
type gate struct {
	most, each int

	mu      sync.Mutex
	free    sync.Cond // of mu: a peer left
	inside  int
	foreign int // of those inside, not trusted
	byUID   map[uint32]int
}

// wait blocks until there is room.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free.L = &g.mu
	for g.inside >= g.most {
		g.free.Wait()
	}
}

// enter reports whether there was room; a peer that entered has to leave.
func (g *gate) enter(p peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.inside >= g.most:
		return false
	case p.trusted():
	case g.foreign >= g.most/2 || g.byUID[p.uid] >= g.each:
		return false
	default:
		if g.byUID == nil {
			g.byUID = map[uint32]int{}
		}
		g.foreign++
		g.byUID[p.uid]++
	}
	g.inside++
	return true
}

func (g *gate) leave(p peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.free.Signal()
	if p.trusted() {
		return
	}
	g.foreign--
	if g.byUID[p.uid]--; g.byUID[p.uid] == 0 {
		delete(g.byUID, p.uid)
	}
}

// limiter lets some lines through at once, and then one every so often.
type limiter struct {
	mu      sync.Mutex
	tokens  int
	last    time.Time
	dropped int
}

const (
	limiterBurst = 20
	limiterEvery = time.Second
)

func (l *limiter) allow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if n := int(now.Sub(l.last) / limiterEvery); n > 0 {
		l.tokens = min(limiterBurst, l.tokens+min(n, limiterBurst))
		l.last = now
	}
	if l.tokens == 0 {
		l.dropped++
		return false
	}
	l.tokens--
	return true
}

// unsaid returns how many lines were dropped since its last call.
func (l *limiter) unsaid() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.dropped
	l.dropped = 0
	return n
}
