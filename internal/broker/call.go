package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// op is a call that the filters of gen trap.
type op int

const (
	opNone op = iota
	opSocket
	opBind
	opSetsockopt
	opAccept
	opAccept4
	opSocketcall
	opSocketpair // by socketcall only
)

var opNames = [...]string{"unknown", "socket", "bind", "setsockopt", "accept", "accept4", "socketcall", "socketpair"}

func (o op) String() string { return opNames[o] }

// call is a trapped call.
type call struct {
	n    *notify.Notification
	op   op
	abi  *afalg.ABI
	args [6]uint64
	// handOver is called before anything that takes long.
	handOver func()
	// indirect means that the arguments were read from memory, which may have
	// changed since: the kernel must not carry out the call.
	indirect bool
}

type number struct {
	arch uint32
	nr   uint32
}

type entry struct {
	op  op
	abi *afalg.ABI
}

// entries maps the number of a call to its meaning. It is made once, from the
// kernel's tables.
var entries = func() map[number]entry {
	m := map[number]entry{}
	abis := afalg.ABIs()
	for i := range abis {
		a := &abis[i]
		for _, op := range []op{opSocket, opBind, opSetsockopt, opAccept, opAccept4, opSocketcall} {
			if nr, _ := a.Number(op.String()); nr != 0 {
				m[number{a.Audit, nr}] = entry{op, a}
			}
		}
	}
	return m
}()

// decode finds out which call it is. It returns false for a call that is not
// ours.
func (c *call) decode() bool {
	e, ok := entries[number{c.n.Data.Arch, uint32(c.n.Data.Nr)}]
	c.op, c.abi, c.args = e.op, e.abi, c.n.Data.Args
	if ok && e.abi.Kind == afalg.Compat {
		// The upper halves of the registers mean nothing.
		for i := range c.args {
			c.args[i] = uint64(uint32(c.args[i]))
		}
	}
	return ok
}

// inner is a call that is made by socketcall(2), with the number of its
// arguments.
type inner struct {
	op   op
	args int
}

// socketcalls finds what a number of socketcall means.
var socketcalls = func() map[uint64]inner {
	m := map[uint64]inner{}
	for _, c := range afalg.BrokeredCalls() {
		m[c.Socketcall] = inner{op(slices.Index(opNames[:], c.Name)), c.Args}
	}
	return m
}()

// unwrap reads the arguments behind the pointer of socketcall, once. What
// follows uses this copy only.
func (s *server) unwrap(c *call) (reply, bool) {
	inner, ok := socketcalls[c.args[0]]
	if !ok {
		return fail(unix.EINVAL), true
	}
	word := c.abi.LongSize()
	buf := make([]byte, word*inner.args)
	if err := notify.ReadMemory(c.n.TID, c.args[1], buf); err != nil {
		return s.unreadable(c, err), true
	}
	c.op, c.indirect, c.args = inner.op, true, [6]uint64{}
	for i := range inner.args {
		if word == 4 {
			c.args[i] = uint64(binary.NativeEndian.Uint32(buf[4*i:]))
		} else {
			c.args[i] = binary.NativeEndian.Uint64(buf[8*i:])
		}
	}
	return reply{}, false
}

// unreadable answers a call whose memory cannot be read: EFAULT if that is the
// caller's fault.
func (s *server) unreadable(c *call, err error) reply {
	if errors.Is(err, unix.ESRCH) { // killed meanwhile
		return done
	}
	if !errors.Is(err, unix.EFAULT) {
		s.o.Observer.Failed("memory", fmt.Errorf("read the memory of thread %d: %w", c.n.TID, err))
	}
	return fail(unix.EFAULT)
}

// reply is the answer to a call. The zero reply is a denial.
type reply struct {
	kind  replyKind
	errno unix.Errno
	value int64
}

type replyKind int

const (
	replyFail replyKind = iota
	replyValue
	replyContinue
	replyDone // answered already, or nobody waits
)

func fail(errno unix.Errno) reply {
	if errno == 0 { // it would be a success
		errno = unix.EPERM
	}
	return reply{kind: replyFail, errno: errno}
}

func value(v int64) reply { return reply{kind: replyValue, value: v} }

var (
	goOn = reply{kind: replyContinue}
	done = reply{kind: replyDone}
)
