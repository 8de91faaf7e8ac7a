package broker

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const (
	typeMask = 0xf // SOCK_TYPE_MASK (linux/net.h)
	typeMax  = 11  // SOCK_MAX
)

// socket hands out a placeholder to a caller that may use any algorithm at all.
// Others learn no more than from a filter that denies the family. For callers
// that may, the order of the checks is the kernel's.
func (s *server) socket(c *call) reply {
	family, kind, flags := int32(c.args[0]), int32(c.args[1])&typeMask, int32(c.args[1])&^typeMask
	switch {
	case family != afalg.Family && c.indirect:
		return s.make(c, false)
	case family != afalg.Family: // in a register, which nobody can change
		return goOn
	}
	a := s.ask(c, afalg.Algorithm{})
	if !s.listener.Valid(c.n.ID) {
		return done
	}
	switch {
	case !a.allowed:
		return s.denied(c, a, a.plan.SocketErrno)
	case flags&^(unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK) != 0 || kind >= typeMax:
		return fail(unix.EINVAL)
	case kind != unix.SOCK_SEQPACKET:
		return fail(unix.ESOCKTNOSUPPORT)
	case int32(c.args[2]) != 0:
		return fail(unix.EPROTONOSUPPORT)
	}
	return s.open(c, a, flags)
}

// open makes the parent first: a kernel without AF_ALG says so here.
func (s *server) open(c *call, a answer, flags int32) reply {
	if !s.sessions.reserve() {
		a.reason = fmt.Sprintf("the workload has %d sessions open, the most that one may have", s.sessions.limit)
		return s.denied(c, a, errnoOf(unix.ENFILE))
	}
	used := false
	defer func() {
		if !used {
			s.sessions.release()
		}
	}()
	parent, err := s.o.Crypto.Socket()
	if err != nil {
		a.reason = "the kernel gave no socket: " + err.Error()
		return s.denied(c, a, errnoOf(err))
	}
	p, err := s.o.Pairs.take()
	if err != nil {
		unix.Close(parent)
		s.o.Observer.Failed("pairs", err)
		a.reason = err.Error()
		return s.denied(c, a, a.plan.SocketErrno)
	}
	defer unix.Close(p.placeholder)
	if flags&unix.SOCK_NONBLOCK != 0 {
		unix.SetNonblock(p.placeholder, true)
	}
	ses := &session{identity: p.identity, since: now(), kept: end{fd: p.kept}, parent: parent}
	if err := s.watch(ses); err != nil {
		notify.CloseAll([]int{p.kept, parent})
		s.o.Observer.Failed("session", err)
		return fail(unix.ENFILE)
	}
	used = true
	return s.hand(c, ses, p.placeholder, flags)
}

// watch makes the hub report once that the kept end hangs up; epoll always
// reports that. The helper that made the pair may still have a copy, and epoll
// would repeat the event for that.
func (s *server) watch(ses *session) error {
	s.hub.name(&ses.tag, item{s, ses.inode})
	return s.hub.add(ses.kept.fd, unix.EPOLLET, ses.tag)
}

// hand registers the session before it puts the placeholder into the workload:
// it may be used at once.
func (s *server) hand(c *call, ses *session, placeholder int, flags int32) reply {
	s.sessions.add(ses)
	_, err := s.listener.AddFD(c.n.ID, placeholder, flags&unix.SOCK_CLOEXEC != 0, true)
	if err != nil {
		s.sessions.remove(s.hub, ses)
	}
	return added(err)
}

// added is the answer after an attempt to put a descriptor into the workload.
// Success has answered the call.
func added(err error) reply {
	if err == nil || errors.Is(err, notify.ErrGone) {
		return done
	}
	return fail(unix.Errno(errnoOf(err).Number))
}

func errnoOf(err error) plan.Errno {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return plan.Errno{Name: afalg.ErrnoName(uint32(errno)), Number: uint32(errno)}
}

// wrapTime is less than the kernel takes to hand out 2^32 inode numbers of
// sockets: only after it can another socket have the number of a placeholder.
// The cookie tells them apart. A confusion would not skip the decision about
// the caller.
const wrapTime = 10 * time.Second

// find returns the session that a descriptor of the caller belongs to. nil
// means none: the kernel may go on with the call.
func (s *server) find(c *call) (*session, error) {
	fd := int32(c.args[0])
	inode, ok := socketInode(c.n.TID, fd)
	if !ok {
		return nil, nil
	}
	ses := s.sessions.get(inode)
	if ses == nil {
		return nil, nil
	}
	if now()-ses.since < int64(wrapTime) {
		return ses, nil
	}
	cookie, err := cookieOf(c.n.TID, fd)
	if err != nil {
		return nil, fmt.Errorf("identify descriptor %d: %w", fd, err)
	}
	if cookie != ses.cookie {
		return nil, nil
	}
	return ses, nil
}

// socketInode returns the socket behind a descriptor, in the table of that very
// thread. An unreadable descriptor is not found: no harm can come of that.
func socketInode(tid uint32, fd int32) (uint64, bool) {
	if fd < 0 {
		return 0, false
	}
	path := make([]byte, 0, 40)
	path = append(strconv.AppendUint(append(path, "/proc/"...), uint64(tid), 10), "/fd/"...)
	path = strconv.AppendInt(path, int64(fd), 10)
	var link [40]byte
	n, err := unix.Readlink(string(path), link[:])
	const prefix = "socket:["
	if err != nil || n <= len(prefix) || string(link[:len(prefix)]) != prefix {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(link[len(prefix):n-1]), 10, 64)
	return inode, err == nil
}

// pidfdThread makes a descriptor of a thread (PIDFD_THREAD, Linux 6.9).
const pidfdThread = unix.O_EXCL

// cookieOf takes a copy of the descriptor and asks it.
func cookieOf(tid uint32, fd int32) (uint64, error) {
	mine, err := copyOf(tid, fd)
	if err != nil {
		return 0, err
	}
	defer unix.Close(mine)
	return unix.GetsockoptUint64(mine, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// copyOf takes a copy of a descriptor of a thread. Before Linux 6.9 a pidfd
// stands for a whole process only: then a thread with a descriptor table of its
// own cannot be served, and is refused.
func copyOf(tid uint32, fd int32) (int, error) {
	process, err := unix.PidfdOpen(int(tid), pidfdThread)
	if err == unix.EINVAL {
		process, err = unix.PidfdOpen(int(tid), 0)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(process)
	return unix.PidfdGetfd(process, int(fd), 0)
}
