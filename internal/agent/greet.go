package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// peer is the other side of a connection, as the kernel knows it.
type peer struct {
	pid int // 0: in a PID namespace that is not visible here
	uid uint32
}

// trusted reports whether the peer's word on a container's grants counts.
func (p peer) trusted() bool { return p.uid == 0 || p.uid == uint32(unix.Geteuid()) }

func (p peer) String() string { return fmt.Sprintf("process %d of user %d", p.pid, p.uid) }

func peerOf(raw syscall.RawConn) (p peer, err error) {
	failed := raw.Control(func(fd uintptr) {
		var c *unix.Ucred
		if c, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{int(c.Pid), c.Uid}
		}
	})
	return p, errors.Join(failed, err)
}

// accept takes connections until the socket is closed. At most maxGreetings are
// open: others wait in the kernel's queue.
func (a *Agent) accept() error {
	for {
		a.greetings.wait()
		conn, err := a.socket.AcceptUnix()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ECONNABORTED):
			a.failed("accept", fmt.Errorf("accept a connection: %w", err))
			time.Sleep(100 * time.Millisecond)
			continue
		default:
			return hosterr.Errorf("accept a connection: %w", err)
		}
		a.welcome(conn)
	}
}

// welcome talks to a peer, unless the peer has too many connections.
func (a *Agent) welcome(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	var p peer
	if err == nil {
		p, err = peerOf(raw)
	}
	if err == nil && !a.greetings.enter(p) {
		err = a.turnAway(conn, raw, p, errors.New("it has too many connections"))
	}
	if err != nil {
		conn.Close()
		a.refuse(p, err)
		return
	}
	if !a.begin() {
		if err := a.turnAway(conn, raw, p, errStopping); err != errStopping {
			a.refuse(p, err)
		}
		a.greetings.leave(p)
		conn.Close()
		return
	}
	go func() {
		defer a.busy.Done()
		defer a.greetings.leave(p)
		defer conn.Close()
		if p.pid == unix.Getpid() { // it checks itself
			return
		}
		conn.SetDeadline(time.Now().Add(a.o.Greeting))
		err := a.greet(raw, p)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			conn.SetDeadline(time.Time{})
			err = a.turnAway(conn, raw, p, fmt.Errorf("its state did not come within %v", a.o.Greeting))
		}
		if err != nil && !errors.Is(err, errSilent) {
			a.refuse(p, err)
		}
	}()
}

// errStopping is for a peer that comes while the agent stops: its message waits
// for the next agent, or fails.
var errStopping = errors.New("the agent stops")

// begin counts work that stop waits for; it returns false once stop has stopped
// waiting.
func (a *Agent) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return false
	}
	a.busy.Add(1)
	return true
}

// refuse reports a peer's error. A peer that is not trusted cannot fill the
// log.
func (a *Agent) refuse(p peer, err error) {
	if !p.trusted() && !a.refusals.allow() {
		return
	}
	err = fmt.Errorf("%v: %w", p, err)
	if n := a.refusals.unsaid(); n > 0 {
		err = fmt.Errorf("%w (%d more were not told)", err, n)
	}
	a.failed("peer", err)
}

// greet takes a container from a peer, or ends it.
func (a *Agent) greet(raw syscall.RawConn, p peer) error {
	s, l, err := hear(raw)
	if err != nil {
		return err
	}
	c := openTarget(s.Pid) // before anything is asked about it
	defer c.close()
	if err = a.inspect(p, s.Pid); err == nil {
		r := record{ID: s.State.ID, PID: s.Pid, UID: p.uid, Trusted: p.trusted()}
		r.Grants = a.grants(p, r.ID, s.Metadata)
		err = a.admit(r, l)
	}
	if err == nil {
		return nil
	}
	end := c.end(p)
	l.Close() // only now: until then trapped calls wait
	return refused(s.State.ID, err, end)
}

// hear reads a peer's message: the state of a container, and the listener of
// its filter.
func hear(raw syscall.RawConn) (*specs.ContainerProcessState, *notify.Listener, error) {
	m := &messages{raw: raw}
	defer func() { notify.CloseAll(m.fds) }()
	s, err := readState(m)
	if err != nil {
		return nil, nil, err
	}
	i, err := listenerIndex(s.Fds, len(m.fds))
	if err != nil {
		return nil, nil, fmt.Errorf("container %q: %w", s.State.ID, err)
	}
	fd := m.fds[i]
	m.fds = append(m.fds[:i:i], m.fds[i+1:]...)
	l, err := notify.NewListener(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("container %q: %w", s.State.ID, err)
	}
	return s, l, nil
}

// grants reads the names of rules that come with a container. Unreadable
// metadata grants nothing.
func (a *Agent) grants(p peer, id, metadata string) []string {
	if metadata == "" {
		return nil
	}
	m, err := plan.ParseMetadata(metadata)
	switch {
	case !p.trusted():
		if err == nil && len(m.Grants) > 0 {
			a.refuse(p, fmt.Errorf("container %q is served without its grants: they count only if root or user %d sends them", id, unix.Geteuid()))
		}
		return nil
	case err != nil:
		a.failed("metadata", fmt.Errorf("container %q is served without grants: %w", id, err))
		return nil
	}
	return m.Grants
}

// inspect checks the process that a peer names: it must be under a filter, and
// hold nothing that no filter sees.
func (a *Agent) inspect(p peer, pid int) error {
	if p.pid == 0 {
		return errors.New("it is in a PID namespace that is not seen here, and process ids mean nothing")
	}
	if err := samePIDs(p.pid); err != nil {
		return err
	}
	if err := underFilter(pid); err != nil {
		return err
	}
	return checkDescriptors(pid, protocolALG)
}

// messages reads from a connection. Descriptors may come with the first
// message.
type messages struct {
	raw   syscall.RawConn
	fds   []int
	begun bool
}

func (m *messages) Read(p []byte) (n int, err error) {
	most := maxFDs
	if m.begun {
		most = 0
	}
	var fds []int
	failed := m.raw.Read(func(fd uintptr) bool {
		n, fds, err = notify.ReceiveFDs(int(fd), p, most)
		return err != unix.EAGAIN
	})
	if failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, err
	}
	if !m.begun {
		m.begun, m.fds = true, fds
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
