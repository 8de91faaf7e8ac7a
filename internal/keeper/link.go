package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// wire is a message between keepers; handover.go has their order. Each is one
// packet of JSON.
type wire struct {
	Kind    kind     `json:"kind"`
	Version int      `json:"version,omitempty"`
	Count   int      `json:"count,omitempty"` // of descriptors
	Names   []string `json:"names,omitempty"` // of those that come with this message
	Listen  *place   `json:"listen,omitempty"`
	Door    *place   `json:"door,omitempty"`
	Reason  string   `json:"reason,omitempty"`

	fds []int
}

// place is where a socket is that is handed over.
type place struct {
	Path string `json:"path"`
	File fileID `json:"file"`
}

type kind string

const (
	wishNow     kind = "now"         // → give me everything
	wishStandBy kind = "stand-by"    // → give me everything when you end
	refused     kind = "refused"     // ← and why
	begin       kind = "begin"       // ← how many descriptors come
	descriptors kind = "descriptors" // ← some of them, with their names
	have        kind = "have"        // → how many have come so far
	complete    kind = "complete"    // ← these were all
	serving     kind = "serving"     // → an agent serves with them
	over        kind = "over"        // ← and they are gone here
	back        kind = "back"        // ← let go of everything: it is served here again
)

const (
	wireVersion = 1
	maxWire     = 64 << 10
	batch       = 200 // descriptors in a message; each has a name of up to maxName bytes
)

// link is a connection to another keeper.
type link struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	uid  uint32
	pid  int
	came chan wire // what the other one says; closed at its end
	why  error     // of that end; nil if the other one closed it
}

func newLink(conn *net.UnixConn) (*link, error) {
	l := &link{conn: conn, came: make(chan wire)}
	var err error
	if l.raw, err = conn.SyscallConn(); err != nil {
		return nil, err
	}
	failed := l.raw.Control(func(fd uintptr) {
		var c *unix.Ucred
		if c, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			l.uid, l.pid = c.Uid, int(c.Pid)
		}
	})
	return l, errors.Join(failed, err)
}

// check refuses a keeper that is not root's or this user's: it would get, or could
// have forged, what decides for all containers.
func (l *link) check() error {
	switch {
	case l.uid != 0 && l.uid != uint32(unix.Geteuid()):
		return fmt.Errorf("it is of user %d, and only root and user %d are heard", l.uid, unix.Geteuid())
	case l.pid == 0:
		return errors.New("it is in a PID namespace that is not seen here (hostPID: true is missing)")
	}
	return nil
}

func (l *link) send(m wire, fds ...int) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > maxWire {
		return fmt.Errorf("a message of %d bytes", len(text))
	}
	l.conn.SetWriteDeadline(time.Now().Add(patience))
	failed := l.raw.Write(func(socket uintptr) bool {
		err = notify.SendFDs(int(socket), text, fds...)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(failed, err)
}

// receive receives a message with at most that many descriptors.
func (l *link) receive(most int) (m wire, err error) {
	text := make([]byte, maxWire)
	n := 0
	failed := l.raw.Read(func(socket uintptr) bool {
		n, m.fds, err = notify.ReceiveFDs(int(socket), text, most)
		return err != unix.EAGAIN
	})
	if err = errors.Join(failed, err); err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	d := json.NewDecoder(bytes.NewReader(text[:n]))
	d.DisallowUnknownFields()
	err = d.Decode(&m)
	switch {
	case err != nil:
	case d.More():
		err = errors.New("more than a message in a packet")
	case len(m.Names) != len(m.fds):
		err = fmt.Errorf("%d descriptors, and %d names", len(m.fds), len(m.Names))
	default:
		return m, nil
	}
	notify.CloseAll(m.fds)
	return wire{}, fmt.Errorf("read a message of another keeper: %w", err)
}

// pump receives messages until the end.
func (l *link) pump(most int) {
	for {
		m, err := l.receive(most)
		if errors.Is(err, unix.ECONNRESET) { // it did not read all before it closed; what it sent comes next
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				l.why = err
			}
			close(l.came)
			return
		}
		l.came <- m
	}
}

// close ends a link whose messages are pumped.
func (l *link) close() {
	l.conn.Close()
	go func() {
		for m := range l.came {
			notify.CloseAll(m.fds)
		}
	}()
}
