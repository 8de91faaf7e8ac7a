package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// batch is how many pairs the helper makes at a time.
const batch = 16

// Pairs are Unix socket pairs from another process. SO_PEERPIDFD on a socket
// leads to the process that made it, even across PID namespaces: it must not be
// the broker.
type Pairs struct {
	socket int
	asked  atomic.Bool

	mu    sync.Mutex
	ready []pair
	err   error
}

// pair is a placeholder and the end that the broker keeps.
type pair struct {
	placeholder, kept int
	identity
}

// identity names the socket of a placeholder. The kernel reuses inode numbers
// after a long while, cookies never.
type identity struct{ inode, cookie uint64 }

const identitySize = 16

// identify asks the kernel.
func identify(socket int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(socket, &st); err != nil {
		return identity{}, err
	}
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_COOKIE)
	return identity{st.Ino, cookie}, err
}

// NewPairs talks to MakePairs in another process over a socket of type
// SOCK_SEQPACKET.
func NewPairs(socket int) *Pairs { return &Pairs{socket: socket} }

// take returns a pair. It asks for the next batch before the last one is used
// up, so that it seldom has to wait.
func (p *Pairs) take() (pair, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) < batch/2 && !p.asked.Load() {
		p.ask()
	}
	if len(p.ready) == 0 {
		p.receive()
	}
	if len(p.ready) == 0 {
		return pair{}, p.err
	}
	last := p.ready[len(p.ready)-1]
	p.ready = p.ready[:len(p.ready)-1]
	return last, nil
}

func (p *Pairs) ask() {
	if err := notify.SendFDs(p.socket, []byte{batch}); err != nil {
		p.err = fmt.Errorf("ask the helper for socket pairs: %w", err)
		return
	}
	p.asked.Store(true)
}

// collect takes over a requested batch, if it has arrived. Descriptors in flight
// cost the kernel work whenever anybody closes a Unix socket (unix_gc), so they
// are not left there.
func (p *Pairs) collect() {
	if !p.asked.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	here := [1]unix.PollFd{{Fd: int32(p.socket), Events: unix.POLLIN}}
	if n, err := unix.Poll(here[:], 0); n > 0 && err == nil {
		p.receive()
	}
}

func (p *Pairs) receive() {
	if !p.asked.Load() {
		return
	}
	p.asked.Store(false)
	identities := make([]byte, batch*identitySize)
	n, fds, err := notify.ReceiveFDs(p.socket, identities, 2*batch)
	switch {
	case err != nil:
		p.err = fmt.Errorf("receive socket pairs from the helper: %w", err)
	case n == 0:
		p.err = errors.New("the helper that makes socket pairs has ended")
	case len(fds) == 0 || n != len(fds)/2*identitySize:
		notify.CloseAll(fds)
		p.err = errors.New("the helper could make no socket pairs: it is short of descriptors")
	default:
		for i := 0; i < len(fds); i += 2 {
			at := identities[i/2*identitySize:]
			p.ready = append(p.ready, pair{fds[i], fds[i+1], identity{
				inode: binary.NativeEndian.Uint64(at), cookie: binary.NativeEndian.Uint64(at[8:]),
			}})
		}
	}
}

// Close closes the unused pairs and the socket.
func (p *Pairs) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.ready {
		notify.CloseAll([]int{q.placeholder, q.kept})
	}
	p.ready, p.err = nil, errors.New("the pairs were closed")
	unix.Close(p.socket)
}

// MakePairs is the helper: it makes as many pairs as are asked for, until the
// other side of the socket is closed. Its process must hold nothing of
// interest, and not be dumpable.
func MakePairs(socket int) error {
	for {
		request := make([]byte, 1)
		n, _, err := notify.ReceiveFDs(socket, request, 0)
		if n == 0 || err == unix.ECONNRESET { // with a batch that nobody took
			return nil
		}
		if err != nil {
			return err
		}
		identities, fds := makePairs(int(request[0]))
		err = notify.SendFDs(socket, identities, fds...)
		notify.CloseAll(fds)
		if err != nil {
			return err
		}
	}
}

// makePairs returns as many pairs as it can make. One byte, which is no
// identity, stands for none.
func makePairs(n int) (identities []byte, fds []int) {
	for range min(n, batch) {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			break
		}
		id, err := identify(ends[0])
		if err != nil || mark(ends[1]) != nil || disable(ends[0], ends[1]) != nil {
			notify.CloseAll(ends[:])
			break
		}
		fds = append(fds, ends[0], ends[1])
		identities = binary.NativeEndian.AppendUint64(identities, id.inode)
		identities = binary.NativeEndian.AppendUint64(identities, id.cookie)
	}
	if len(fds) == 0 {
		identities = []byte{0}
	}
	return identities, fds
}

// mark leaves an unread message of no bytes in a placeholder, for as long as
// that is open (end.open).
func mark(kept int) error { return unix.Sendto(kept, nil, unix.MSG_DONTWAIT, nil) }

// disable keeps a pair from being used as one. A message to the kept end would
// never be read; a placeholder sent over itself would keep itself open for
// ever.
//
// The placeholder gets a name, because the filter leaves the addresses of all
// lengths but one to the kernel: a Unix socket with a name refuses another one
// with EINVAL, as AF_ALG refuses a short one. One call still succeeds, with two
// bytes that say AF_UNIX: it asks for any name, and there is one already.
func disable(placeholder, kept int) error {
	if err := unix.Bind(placeholder, &unix.SockaddrUnix{}); err != nil {
		return err
	}
	return unix.Shutdown(kept, unix.SHUT_RD)
}
