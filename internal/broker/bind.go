package broker

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Offsets in struct sockaddr_alg (linux/if_alg.h).
const (
	offsetFeat = 16
	offsetMask = 20
)

// bind decides about the algorithm. Only socketcall traps addresses of another
// size than the structure's; they are refused as they are without it.
func (s *server) bind(c *call) reply {
	ses, err := s.find(c)
	if err != nil {
		return s.lost(c, err)
	}
	if ses == nil {
		return goOn
	}
	if uint32(c.args[2]) != afalg.SockaddrSize {
		return fail(unix.EINVAL)
	}
	var address [afalg.SockaddrSize]byte
	if err := notify.ReadMemory(c.n.TID, c.args[1], address[:]); err != nil {
		return s.unreadable(c, err)
	}
	algorithm, err := afalg.ParseSockaddr(address[:])
	if err != nil {
		return fail(unix.EINVAL)
	}
	a := s.ask(c, algorithm)
	if !s.listener.Valid(c.n.ID) {
		return done
	}
	if !a.allowed {
		return s.denied(c, a, a.plan.BindErrno)
	}
	err = ses.bind(s.o.Crypto, algorithm, address[:], &a)
	if err != nil {
		s.decided(c, a, uint32(errnoOf(err).Number))
		return fail(unix.Errno(errnoOf(err).Number))
	}
	s.decided(c, a, 0)
	return value(0)
}

// bind binds the parent to the decided address, never to the caller's bytes.
func (ses *session) bind(crypto Crypto, algorithm afalg.Algorithm, address []byte, a *answer) error {
	own := &unix.SockaddrALG{
		Type: string(algorithm.Type), Name: algorithm.Name,
		Feature: binary.NativeEndian.Uint32(address[offsetFeat:]),
		Mask:    binary.NativeEndian.Uint32(address[offsetMask:]),
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.parent < 0 {
		return unix.EBADF
	}
	if err := crypto.Bind(ses.parent, own, isPrivileged(a.subject.Capabilities)); err != nil {
		return err
	}
	ses.bound, ses.callers = algorithm, []Caller{a.caller()}
	return nil
}

// maxValue is larger than any key: the kernel refuses those above
// net.core.optmem_max.
const maxValue = 128 << 10

// setsockopt sets the key or the size of the tag, if the caller itself may use
// the algorithm. It refuses everything else: some options would use keyrings or
// privileges, and those would be ours.
func (s *server) setsockopt(c *call) reply {
	ses, err := s.find(c)
	if err != nil {
		return s.lost(c, err)
	}
	if ses == nil {
		return s.option(c)
	}
	if int32(c.args[1]) != unix.SOL_ALG {
		return fail(unix.ENOPROTOOPT)
	}
	name, length := int(int32(c.args[2])), uint32(c.args[4])
	if int32(length) < 0 {
		return fail(unix.EINVAL)
	}
	var key []byte
	switch name {
	case unix.ALG_SET_KEY:
		if length > maxValue {
			return fail(unix.ENOMEM)
		}
		key = make([]byte, length)
		defer clear(key)
		if err := notify.ReadMemory(c.n.TID, c.args[3], key); err != nil {
			return s.unreadable(c, err)
		}
	case unix.ALG_SET_AEAD_AUTHSIZE: // the length is the size
	default:
		return fail(unix.ENOPROTOOPT)
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	// The kernel's answer for a socket that was never bound.
	who, r, ok := s.mayUse(c, ses, unix.ENOPROTOOPT)
	if !ok {
		return r
	}
	if err := s.o.Crypto.SetOption(ses.parent, name, key, length); err != nil {
		return fail(unix.Errno(errnoOf(err).Number))
	}
	ses.note(who)
	return value(0)
}

// accept hands out an operation socket, if the caller itself may use the
// algorithm: the process that bound the placeholder may have passed it on.
func (s *server) accept(c *call, flags int32) reply {
	ses, err := s.find(c)
	if err != nil {
		return s.lost(c, err)
	}
	if ses == nil {
		return goOn
	}
	if c.args[1] != 0 { // by socketcall: the kernel has no address to give
		return fail(unix.EINVAL)
	}
	if flags&^(unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK) != 0 {
		return fail(unix.EINVAL)
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	// The kernel's answer for a socket that was never bound.
	who, r, ok := s.mayUse(c, ses, unix.EINVAL)
	if !ok {
		return r
	}
	operation, err := s.o.Crypto.Accept(ses.parent, unix.SOCK_CLOEXEC|int(flags)&unix.SOCK_NONBLOCK)
	if err != nil {
		return fail(unix.Errno(errnoOf(err).Number))
	}
	defer unix.Close(operation)
	_, err = s.listener.AddFD(c.n.ID, operation, flags&unix.SOCK_CLOEXEC != 0, true)
	if err == nil {
		ses.note(who)
		s.o.Used(ses.callers, ses.bound)
	}
	return added(err)
}

// mayUse decides whether the caller may use the algorithm of a session. If not,
// the reply ends the call. The session is locked.
func (s *server) mayUse(c *call, ses *session, denial unix.Errno) (Caller, reply, bool) {
	if ses.parent < 0 || ses.bound.Name == "" {
		return Caller{}, fail(denial), false
	}
	a := s.ask(c, ses.bound)
	if !s.listener.Valid(c.n.ID) {
		return Caller{}, done, false
	}
	if !a.allowed {
		return Caller{}, s.denied(c, a, errnoOf(denial)), false
	}
	return a.caller(), reply{}, true
}

// lost answers a call on a descriptor that may or may not be a placeholder. The
// broker may do nothing that depends on it.
func (s *server) lost(c *call, err error) reply {
	s.o.Observer.Failed("descriptor", fmt.Errorf("thread %d: %w: the call is refused", c.n.TID, err))
	return fail(unix.EINVAL)
}
