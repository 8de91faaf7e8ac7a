package keeper

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/listen"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// A hand-over, from the one that holds everything to the one that takes it:
//
//	→ now, or stand-by              the version; who stands by waits for begin
//	← begin                         the agent has been stopped, and its sessions are in the store
//	← descriptors, → have           until all of them have come, with both sockets
//	← complete
//	→ serving                       an agent has started with them
//	← over                          they are closed here
//
// Until over is sent, the first one keeps everything. If the other one dies, says
// anything else, or takes too long, it is told back (and killed if it does not let
// go), and the agent of the first one is started again. If the first one dies after
// complete, the other one has everything, and goes on. So at each moment there is
// one agent or none, and trapped calls wait while there is none.

var (
	// errGone means that the other keeper has gone before anything was complete.
	errGone = errors.New("the other keeper has gone")
	// errTwo means that another keeper begins at the same time.
	errTwo = errors.New("another keeper begins")
)

// obtain makes this keeper the one that holds everything, and starts its agent. It
// returns without guests if a signal came first.
func (k *keeper) obtain(wish kind) error {
	for !k.ending {
		l, err := k.knock()
		switch {
		case err == nil:
			err = k.take(l, wish)
			if errors.Is(err, errGone) {
				k.pause(firstDelay)
				continue
			}
			return err
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
			if wish == wishStandBy {
				k.note("the other keeper has gone, and with it what it held: this one begins anew")
			}
			if err = k.make(); errors.Is(err, errTwo) {
				k.pause(firstDelay)
				continue
			}
			return err
		case errors.Is(err, unix.EAGAIN): // it has no room for one more
			k.pause(standByTime)
		default:
			return hosterr.Errorf("hand-over socket %s: %w", k.o.HandOver, err)
		}
	}
	return nil
}

// knock connects to the keeper that holds everything.
func (k *keeper) knock() (*link, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: k.o.HandOver, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l, err := newLink(conn)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the keeper that listens: %w", err)
	}
	go l.pump(notify.MaxFDs)
	return l, nil
}

// pause waits, unless a signal ends this keeper.
func (k *keeper) pause(d time.Duration) { k.turn(nothingSaid, time.After(d)) }

// make begins with nothing.
func (k *keeper) make() (err error) {
	if k.door, err = makeSocket(k.o.HandOver, unix.SOCK_SEQPACKET); errors.Is(err, listen.ErrTaken) {
		return errTwo
	} else if err != nil {
		return hosterr.Errorf("hand-over socket %s: %w", k.o.HandOver, err)
	}
	k.listen = socket{path: k.o.Listen, kind: unix.SOCK_STREAM, fd: -1}
	if err = k.start(); err == nil {
		err = k.open()
	}
	if err != nil {
		k.release(true)
		return hosterr.Errorf("%w", err)
	}
	return nil
}

// open lets the next keeper in.
func (k *keeper) open() (err error) {
	k.guests, err = receiveGuests(k.door.fd, k.refuse)
	return err
}

// take takes everything from another keeper. On an error nothing is left here.
func (k *keeper) take(l *link, wish kind) error {
	defer l.close()
	if err := k.receive(l, wish); err != nil {
		k.release(false)
		return err
	}
	if err := k.serveInstead(l); err != nil {
		if k.child != nil {
			k.stopChild()
		}
		k.release(false)
		return err
	}
	if err := k.open(); err != nil { // what is held is worth more than the next one
		k.failed("hand-over", fmt.Errorf("no other keeper can take over: %w", err))
		k.guests = &guests{}
	}
	return nil
}

// receive receives everything from another keeper.
func (k *keeper) receive(l *link, wish kind) error {
	if err := l.send(wire{Kind: wish, Version: wireVersion}); err != nil {
		return errGone
	}
	if wish == wishNow {
		k.note("taking over from process %d", l.pid)
	}
	m, err := k.await(l, 0, begin) // who stands by may wait for ever, and a busy one has others before
	if err != nil {
		return err
	}
	if m.Listen == nil || m.Door == nil || m.Count < 2 || m.Version != wireVersion {
		return hosterr.Errorf("hand-over: the other keeper begins with a message that is none of version %d", wireVersion)
	}
	k.listen = socket{path: m.Listen.Path, kind: unix.SOCK_STREAM, fd: -1, file: m.Listen.File}
	k.door = socket{path: m.Door.Path, kind: unix.SOCK_SEQPACKET, fd: -1, file: m.Door.File}
	for got := 0; got < m.Count; {
		some, err := k.await(l, k.o.Patience, descriptors)
		if err != nil {
			return err
		}
		if len(some.fds) == 0 {
			return hosterr.Errorf("hand-over: a message without a descriptor")
		}
		if err := k.sort(some); err != nil {
			return hosterr.Errorf("hand-over: %w", err)
		}
		got += len(some.fds)
		if err := l.send(wire{Kind: have, Count: got}); err != nil {
			return errGone
		}
	}
	if _, err := k.await(l, k.o.Patience, complete); err != nil {
		return err
	}
	if k.listen.fd < 0 || k.door.fd < 0 {
		return hosterr.Errorf("hand-over: a socket is missing")
	}
	if k.listen.path != k.o.Listen { // runtimes look elsewhere from now on
		k.listen.close(false)
		k.listen = socket{path: k.o.Listen, kind: unix.SOCK_STREAM, fd: -1}
	}
	return nil
}

// sort puts descriptors where they belong.
func (k *keeper) sort(m wire) error {
	for i, name := range m.Names {
		var err error
		switch {
		case name == listenName && k.listen.fd < 0:
			k.listen.fd = m.fds[i]
		case name == doorName && k.door.fd < 0:
			k.door.fd = m.fds[i]
		default:
			err = k.store.add(name, m.fds[i:i+1])
		}
		if err != nil {
			notify.CloseAll(m.fds[i+1:])
			return err
		}
	}
	return nil
}

// serveInstead starts an agent with what was received, and has the other keeper let
// go of it.
func (k *keeper) serveInstead(l *link) error {
	if err := k.start(); err != nil {
		return hosterr.Errorf("%w", err)
	}
	peer, limit := (<-chan wire)(l.came), time.After(startTime+k.o.Patience)
	for told := false; ; {
		switch e := k.turn(orSilent(peer), limit); e.what {
		case childServes:
			k.served, k.fails = true, 0
			if peer == nil {
				return nil
			}
			told = true
			if err := l.send(wire{Kind: serving}); err != nil {
				return nil // it has gone, and everything is here
			}
		case childEnded:
			err := k.reap()
			if peer != nil {
				return err // the other one takes it back
			}
			return nil // hold starts it again
		case peerGone:
			k.note("the other keeper ended in the hand-over; everything is here, and this one goes on")
			if peer = nil; told {
				return nil
			}
		case peerSaid:
			notify.CloseAll(e.said.fds)
			if e.said.Kind == over && told {
				k.note("took over %d descriptors from process %d", len(k.store.entries), l.pid)
				return nil
			}
			return hosterr.Errorf("hand-over: the other keeper says %q, and keeps everything: %s", e.said.Kind, e.said.Reason)
		case timeUp:
			if peer == nil {
				return nil
			}
			return hosterr.Errorf("hand-over: it did not end in time, and everything is left to the other keeper")
		}
	}
}

func orSilent(peer <-chan wire) <-chan wire {
	if peer == nil {
		return nothingSaid
	}
	return peer
}

// await waits for a message of a kind; 0 is no limit. A signal ends a wait without a
// limit only.
func (k *keeper) await(l *link, limit time.Duration, want kind) (wire, error) {
	var late <-chan time.Time
	if limit > 0 {
		late = time.After(limit)
	}
	for {
		switch e := k.turn(l.came, late); e.what {
		case peerSaid:
			if e.said.Kind == want {
				return e.said, nil
			}
			notify.CloseAll(e.said.fds)
			return wire{}, hosterr.Errorf("hand-over: the other keeper says %q where %q is due: %s", e.said.Kind, want, e.said.Reason)
		case peerGone:
			if l.why != nil {
				return wire{}, hosterr.Errorf("hand-over: %w", l.why)
			}
			return wire{}, errGone
		case timeUp:
			return wire{}, hosterr.Errorf("hand-over: the other keeper said nothing for %v", limit)
		case asked:
			if limit == 0 {
				return wire{}, errGone
			}
		}
	}
}

// give hands everything to another keeper, or goes on as before.
func (k *keeper) give(g *guest) bool {
	if g.left() {
		return false
	}
	defer g.close()
	k.stopChild()
	if err := k.offer(g); err != nil {
		k.failed("hand-over", fmt.Errorf("to process %d, which this one goes on without: %w", g.pid, err))
		k.takeBack(g)
		k.again = time.After(0)
		return false
	}
	k.release(false)
	return true
}

// offer sends everything, and waits until an agent serves with it.
func (k *keeper) offer(g *guest) error {
	all := append([]entry{{listenName, k.listen.fd}, {doorName, k.door.fd}}, k.store.entries...)
	err := g.send(wire{
		Kind: begin, Version: wireVersion, Count: len(all),
		Listen: &place{k.listen.path, k.listen.file}, Door: &place{k.door.path, k.door.file},
	})
	if err != nil {
		return err
	}
	for sent := 0; sent < len(all); {
		m, fds := wire{Kind: descriptors}, []int{}
		for _, e := range all[sent:min(sent+batch, len(all))] {
			m.Names, fds = append(m.Names, e.name), append(fds, e.fd)
		}
		if err := g.send(m, fds...); err != nil {
			return err
		}
		sent += len(fds)
		switch got, err := k.await(g.link, k.o.Patience, have); {
		case err != nil:
			return err
		case got.Count != sent:
			return fmt.Errorf("it has %d descriptors of %d", got.Count, sent)
		}
	}
	if err := g.send(wire{Kind: complete}); err != nil {
		return err
	}
	if _, err := k.await(g.link, startTime+2*k.o.Patience, serving); err != nil {
		return err
	}
	return g.send(wire{Kind: over})
}

// takeBack returns when the other keeper holds nothing any more.
func (k *keeper) takeBack(g *guest) {
	_ = g.send(wire{Kind: back})                      // it may have gone
	late := time.After(min(2*stopTime, k.o.Patience)) // it has to end its agent
	for {
		switch e := k.turn(g.came, late); e.what {
		case peerGone:
			return
		case timeUp:
			k.failed("hand-over", fmt.Errorf("process %d does not let go, and is killed", g.pid))
			_ = unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0)
			late = nil
		}
	}
}
