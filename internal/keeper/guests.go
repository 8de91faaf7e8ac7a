package keeper

import (
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// guest is another keeper that is connected to this one.
type guest struct {
	*link
	wish  kind
	pidfd int // -1 if there is none
}

func (g *guest) close() {
	g.link.close()
	if g.pidfd >= 0 {
		unix.Close(g.pidfd)
		g.pidfd = -1
	}
}

// left reports whether a keeper that waits has gone, or says what nobody asked for.
func (g *guest) left() bool {
	select {
	case <-g.came:
		g.close()
		return true
	default:
		return false
	}
}

const (
	maxGuests    = 16
	greetingTime = 10 * time.Second
)

// guests receives them at the door.
type guests struct {
	listener *net.UnixListener
	came     chan *guest
	closed   chan struct{}
	refuse   func(error)
	places   chan struct{}
	waiting  []*guest // they stand by; the keeper's goroutine alone uses it
}

// receiveGuests begins to accept connections. The socket stays the caller's.
func receiveGuests(door int, refuse func(error)) (*guests, error) {
	// Who connects asks the kernel who listens: from now on it is this process.
	if err := unix.Listen(door, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(door), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), doorName)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("it is of network %s", l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	g := &guests{listener: u, came: make(chan *guest), closed: make(chan struct{}), refuse: refuse, places: make(chan struct{}, maxGuests)}
	go g.accept()
	return g, nil
}

func (gs *guests) accept() {
	for {
		gs.places <- struct{}{}
		conn, err := gs.listener.AcceptUnix()
		if err != nil {
			<-gs.places
			select {
			case <-gs.closed:
				return
			case <-time.After(firstDelay):
				gs.refuse(fmt.Errorf("hand-over: %w", err))
				continue
			}
		}
		go func() {
			defer func() { <-gs.places }()
			g, err := greet(conn)
			if err != nil {
				conn.Close()
				gs.refuse(fmt.Errorf("hand-over: %w", err))
				return
			}
			select {
			case gs.came <- g:
			case <-gs.closed:
				g.close()
			}
		}()
	}
}

// greet hears what a keeper wants.
func greet(conn *net.UnixConn) (*guest, error) {
	l, err := newLink(conn)
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		_ = l.send(wire{Kind: refused, Reason: err.Error()})
		return nil, fmt.Errorf("process %d: %w", l.pid, err)
	}
	conn.SetReadDeadline(time.Now().Add(greetingTime))
	m, err := l.receive(0)
	conn.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
	case m.Version != wireVersion:
		err = fmt.Errorf("it speaks version %d, and this keeper version %d", m.Version, wireVersion)
	case m.Kind != wishNow && m.Kind != wishStandBy:
		err = fmt.Errorf("it begins with %q", m.Kind)
	}
	if err != nil {
		_ = l.send(wire{Kind: refused, Reason: err.Error()})
		return nil, fmt.Errorf("process %d: %w", l.pid, err)
	}
	g := &guest{link: l, wish: m.Kind, pidfd: -1}
	if g.pidfd, err = unix.PidfdOpen(l.pid, 0); err != nil {
		return nil, fmt.Errorf("process %d: %w", l.pid, err)
	}
	go l.pump(0)
	return g, nil
}

// standBy notes a keeper that wants everything at the end.
func (gs *guests) standBy(g *guest) {
	gs.waiting = slices.DeleteFunc(gs.waiting, (*guest).left)
	if len(gs.waiting) == maxGuests {
		g.close()
		return
	}
	gs.waiting = append(gs.waiting, g)
}

// all returns who could take everything, the newest first: who stands by, and who
// came since.
func (gs *guests) all() []*guest {
	for {
		select {
		case g := <-gs.came:
			gs.standBy(g)
		default:
			all := slices.Clone(gs.waiting)
			slices.Reverse(all)
			return all
		}
	}
}

// close lets all of them go.
func (gs *guests) close() {
	if gs.listener != nil {
		close(gs.closed)
		gs.listener.Close()
	}
	for _, g := range gs.waiting {
		g.close()
	}
}
