// Package keeper stands in for a service manager where there is none, as in a pod:
// it starts the agent, keeps the descriptors that the agent wants to outlive it,
// starts it again with them when it ends, and hands everything to the next keeper.
//
// To its agent it speaks the protocols of sd_notify(3) and sd_listen_fds(3). To
// another keeper it speaks the one of handover.go. At each moment one keeper holds
// the listeners of containers, and one agent answers them. A keeper that has handed
// over stands by: it gets everything back when the other one ends.
package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Options configure a keeper.
type Options struct {
	Listen   string   // socket where runtimes connect
	HandOver string   // socket where the next keeper connects
	Args     []string // of this executable, which make it the agent
	Note     func(text string)
	Failed   func(what string, err error)

	Watchdog time.Duration // in which the agent has to give a sign of life; 0: 30 s
	Patience time.Duration // for each step of a hand-over; 0: 2 min
}

// Times of the agent's unit.
const (
	watchdog    = 30 * time.Second
	startTime   = 90 * time.Second
	stopTime    = 15 * time.Second
	patience    = 2 * time.Minute
	firstDelay  = 100 * time.Millisecond
	lastDelay   = 5 * time.Second
	standByTime = time.Second // between attempts to stand by
)

// listenName is the name of the socket where runtimes connect, doorName of the one
// for the hand-over.
const (
	listenName = "listen"
	doorName   = "hand-over"
)

// EndedError means that the agent did not begin to serve, and nothing relies on it.
type EndedError struct {
	Status  int
	outcome string
}

func (e *EndedError) Error() string { return "the agent " + e.outcome }

// keeper has its state in one goroutine, which is locked to its thread: the agent
// ends with that.
type keeper struct {
	o       Options
	ear     *ear
	said    chan said
	drained chan struct{} // see drain
	signals chan os.Signal

	listen socket
	door   socket
	store  *store

	child  *child
	again  <-chan time.Time // when the agent is to be started again
	fails  int              // since an agent served
	served bool             // by an agent of this keeper
	ending bool             // a signal asked for the end
	guests *guests          // nil while this keeper holds nothing
	deaf   *rate.Limiter
	untold atomic.Int64 // refusals since one was told
}

// Run keeps an agent until a signal ends it (nil), or it cannot begin.
func Run(o Options) error {
	runtime.LockOSThread()
	if o.Watchdog == 0 {
		o.Watchdog = watchdog
	}
	if o.Patience == 0 {
		o.Patience = patience
	}
	if err := checkPlace(o.HandOver); err != nil {
		return hosterr.Errorf("hand-over socket %s: %w", o.HandOver, err)
	}
	sweep(o.HandOver)
	e, err := openEar(o.HandOver)
	if err != nil {
		return hosterr.Errorf("listen to the agent: %w", err)
	}
	defer e.close()
	signal.Ignore(unix.SIGPIPE)
	k := &keeper{
		o: o, ear: e, said: make(chan said), drained: make(chan struct{}), signals: make(chan os.Signal, 8),
		listen: socket{fd: -1}, door: socket{fd: -1}, store: newStore(),
		deaf: rate.NewLimiter(rate.Every(time.Second), 1),
	}
	signal.Notify(k.signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT)
	go k.listenToAgent()
	return k.run()
}

// run holds, and stands by, in turn.
func (k *keeper) run() error {
	for wish := wishNow; ; wish = wishStandBy {
		if err := k.obtain(wish); err != nil || k.ending && k.guests == nil {
			return err
		}
		if over, err := k.hold(); err != nil || !over {
			return err
		}
		if k.ending {
			return nil
		}
		k.note("everything is handed over; standing by until the other one ends")
	}
}

// hold serves until everything is handed over, or the end.
func (k *keeper) hold() (over bool, err error) {
	for {
		if k.ending {
			return k.end()
		}
		switch e := k.turn(nil, nil); e.what {
		case childServes:
			k.served, k.fails = true, 0
		case childEnded:
			why := k.reap()
			if !k.served && len(k.store.entries) == 0 {
				k.release(true)
				return false, why
			}
			k.again = time.After(min(firstDelay<<min(k.fails, 10), lastDelay))
			k.fails++
			k.failed("agent", fmt.Errorf("%w; it is started again with the %d descriptors that are kept", why, len(k.store.entries)))
		case guestCame:
			if e.guest.wish == wishStandBy {
				k.guests.standBy(e.guest)
			} else if k.give(e.guest) {
				return true, nil
			}
		}
	}
}

// end gives everything to a keeper that stands by, or ends the agent.
func (k *keeper) end() (over bool, err error) {
	for _, g := range k.guests.all() {
		if k.give(g) {
			return true, nil
		}
	}
	k.stopChild()
	if n := len(k.store.entries); n > 0 {
		k.failed("stop", fmt.Errorf("%d descriptors are lost, for no other keeper stands by: what is trapped in running containers fails with ENOSYS from now on", n))
	}
	k.release(true)
	return false, nil
}

// What turn returns for.
type what int

const (
	nothing what = iota
	childServes
	childEnded // it is not reaped
	guestCame
	peerSaid
	peerGone
	timeUp
	asked // a signal: to end
)

type event struct {
	what  what
	guest *guest
	said  wire
}

// turn waits for the next event, and does what concerns the agent alone.
func (k *keeper) turn(peer <-chan wire, late <-chan time.Time) event {
	ticks := time.NewTicker(max(k.o.Watchdog/4, time.Millisecond))
	defer ticks.Stop()
	for {
		var ended <-chan struct{}
		if k.child != nil {
			ended = k.child.ended
		}
		var came <-chan *guest
		if k.guests != nil && peer == nil {
			came = k.guests.came
		}
		select {
		case m := <-k.said:
			if k.hear(m) {
				return event{what: childServes}
			}
		case <-ended:
			k.drain()
			return event{what: childEnded}
		case s := <-k.signals:
			if s == unix.SIGHUP {
				k.signal(unix.SIGHUP)
				continue
			}
			k.ending = true
			return event{what: asked}
		case g := <-came:
			return event{what: guestCame, guest: g}
		case m, ok := <-peer:
			if !ok {
				return event{what: peerGone}
			}
			return event{what: peerSaid, said: m}
		case <-late:
			return event{what: timeUp}
		case <-ticks.C:
			k.watch()
		case <-k.again:
			k.again = nil
			if err := k.start(); err != nil {
				k.again = time.After(lastDelay)
				k.failed("agent", err)
			}
		}
	}
}

// start starts an agent.
func (k *keeper) start() error {
	if err := k.listen.renew(); err != nil {
		return fmt.Errorf("listen on %s: %w", k.listen.path, err)
	}
	c, err := start(k.o, k.listen.fd, k.store, k.ear.path)
	if err == nil {
		k.child = c
	}
	return err
}

// reap ends what belonged to an agent that has ended.
func (k *keeper) reap() error {
	k.child.reap()
	e := &EndedError{Status: k.child.status.ExitStatus(), outcome: k.child.outcome()}
	k.child = nil
	return e
}

// watch ends an agent that gives no sign of life.
func (k *keeper) watch() {
	c := k.child
	if c == nil {
		return
	}
	limit := k.o.Watchdog
	if !c.ready {
		limit = max(limit, startTime)
	}
	switch silent := time.Since(c.heard); {
	case silent > limit+stopTime:
		c.signal(unix.SIGKILL)
	case silent > limit && !c.killed:
		c.killed = true
		k.failed("watchdog", fmt.Errorf("the agent has given no sign of life for %v, and is ended", silent.Round(time.Second)))
		c.signal(unix.SIGABRT)
	}
}

func (k *keeper) signal(s syscall.Signal) {
	if k.child != nil {
		k.child.signal(s)
	}
}

// stopChild ends the agent, and takes what it leaves. Signals wait meanwhile.
func (k *keeper) stopChild() {
	k.again = nil
	if k.child == nil {
		return
	}
	k.child.signal(unix.SIGTERM)
	late := time.After(stopTime)
	for {
		switch e := k.turn(nothingSaid, late); e.what {
		case childEnded:
			_ = k.reap() // it was asked to
			return
		case timeUp:
			k.failed("agent", errors.New("it did not end in time, and is killed"))
			k.child.signal(unix.SIGKILL)
		}
	}
}

// nothingSaid is a peer that says nothing: no guest is served meanwhile.
var nothingSaid = make(chan wire)

// release lets go of everything. mine says that the places of the sockets are
// still those of this keeper.
func (k *keeper) release(mine bool) {
	if k.guests != nil {
		k.guests.close()
		k.guests = nil
	}
	k.store.close()
	k.listen.close(mine)
	k.door.close(mine)
}

func (k *keeper) note(format string, args ...any) {
	k.o.Note(printable.Line("keeper: " + fmt.Sprintf(format, args...)))
}

func (k *keeper) failed(what string, err error) { k.o.Failed(what, err) }
