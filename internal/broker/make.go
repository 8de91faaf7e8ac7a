package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// Sockets makes the sockets that a workload asks for through socketcall, in
// another process. The family was read from memory, so the call cannot go on in
// the kernel: the caller could change it to AF_ALG meanwhile.
//
// A socket belongs to its maker: it keeps the network namespace, user,
// capabilities, cgroup and label of that thread for good. So the maker takes on
// the caller's first, and refuses where it cannot.
type Sockets struct{ socket int }

// NewSockets talks to MakeSockets in another process, over a socket of type
// SOCK_SEQPACKET.
func NewSockets(socket int) *Sockets { return &Sockets{socket} }

// order describes a socket to make.
type order struct {
	Family, Kind, Protocol int32
	Pair                   bool
	UID, GID               int
	Groups                 []int
	Caps                   uint64 // effective, of the maker's own user namespace
	// Same means that the caller's network namespace is the maker's; otherwise
	// a descriptor of it comes along.
	Same bool
	// Place and Label are those of the caller.
	Place place
	Label string
}

const (
	maxOrder = 1 << 20 // 65,536 groups, at most
	maxReply = 1 << 10 // an errno, or 0 and the reason why there is no socket
)

// errNoMaker is the answer where a call needs a helper that is missing.
var errNoMaker = errors.New("there is no helper that makes sockets: the filter is not that of this broker")

func (m *Sockets) make(o order, namespace int) ([]int, error) {
	if m == nil {
		return nil, errNoMaker
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var along []int
	if !o.Same {
		along = []int{namespace}
	}
	ours, theirs, err := replyPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(ours)
	// An error on the way is no errno of the call.
	err = notify.SendFDs(m.socket, text, append([]int{theirs}, along...)...)
	unix.Close(theirs)
	if err != nil {
		return nil, fmt.Errorf("ask the helper that makes sockets: %v", err)
	}
	reply := make([]byte, maxReply)
	n, fds, err := notify.ReceiveFDs(ours, reply, 2)
	switch {
	case err != nil:
		return nil, fmt.Errorf("hear from the helper that makes sockets: %v", err)
	case n < 4:
		notify.CloseAll(fds)
		return nil, errors.New("the helper that makes sockets has ended")
	}
	switch errno := unix.Errno(binary.NativeEndian.Uint32(reply)); {
	case n > 4:
		notify.CloseAll(fds)
		return nil, errors.New(string(reply[4:n]))
	case errno != 0:
		notify.CloseAll(fds)
		return nil, errno
	}
	want := 1
	if o.Pair {
		want = 2
	}
	if len(fds) != want {
		notify.CloseAll(fds)
		return nil, errors.New("the helper sent no socket")
	}
	return fds, nil
}

// replyPair is for the answer to one order: orders of several workloads are
// carried out at once.
func replyPair() (ours, theirs int, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("ask the helper that makes sockets: %v", err)
	}
	return ends[0], ends[1], nil
}

// make answers a call for a socket, or a pair, of an ordinary family.
func (s *server) make(c *call, both bool) reply {
	if !makes(s.workload.plan.Load(), uint32(c.args[0]), uint32(c.args[1]), uint32(c.args[2])) {
		return s.refuse(c)
	}
	c.handOver() // to another process, and perhaps into a frozen cgroup
	fds, err := s.order(c, both)
	if err != nil {
		var errno unix.Errno
		if !errors.As(err, &errno) {
			s.o.Observer.Failed("socketcall", err)
			errno = unix.EACCES
		}
		return fail(errno)
	}
	defer notify.CloseAll(fds)
	cloexec := int32(c.args[1])&unix.SOCK_CLOEXEC != 0
	if !both {
		_, err := s.listener.AddFD(c.n.ID, fds[0], cloexec, true)
		return added(err)
	}
	return s.addBoth(c, fds, cloexec)
}

// makes reports whether sockets of a kind are made for a workload at all. A
// profile may close others to 64-bit programs, and its rules are not known here.
func makes(p *plan.Plan, family, kind, protocol uint32) bool {
	switch family {
	case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6:
	case unix.AF_NETLINK:
		if protocol != unix.NETLINK_ROUTE {
			return false
		}
	default:
		return false
	}
	return p != nil && plan.DecideSocket(p, p.Rules, family, kind, protocol).Allowed
}

// addBoth puts two descriptors into the caller's table, and their numbers where
// the caller wants them. If that fails, the descriptors stay behind, unused:
// the broker cannot take them back.
func (s *server) addBoth(c *call, fds []int, cloexec bool) reply {
	var numbers []byte
	for _, fd := range fds {
		n, err := s.listener.AddFD(c.n.ID, fd, cloexec, false)
		if err != nil {
			return added(err)
		}
		numbers = binary.NativeEndian.AppendUint32(numbers, uint32(n))
	}
	if err := notify.WriteMemory(c.n.TID, c.args[3], numbers); err != nil {
		return s.unreadable(c, err)
	}
	return value(0)
}

func (s *server) order(c *call, both bool) ([]int, error) {
	o := order{Family: int32(c.args[0]), Kind: int32(c.args[1]), Protocol: int32(c.args[2]), Pair: both}
	return s.o.Sockets.makeFor(o, c.n.TID, func() bool { return s.listener.Valid(c.n.ID) })
}

// makeFor makes a socket as a thread would, if the thread still waits after it
// was looked at.
func (m *Sockets) makeFor(o order, tid uint32, waits func() bool) ([]int, error) {
	if err := o.describe(tid); err != nil {
		return nil, fmt.Errorf("find out who wants a socket (thread %d): %w", tid, err)
	}
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find the network namespace of thread %d: %w", tid, err)
	}
	defer unix.Close(namespace)
	if o.Same, err = sameFile(namespace, "/proc/thread-self/ns/net"); err != nil {
		return nil, fmt.Errorf("compare network namespaces: %w", err)
	}
	if !waits() {
		return nil, unix.ESRCH
	}
	return m.make(o, namespace)
}

func sameFile(fd int, path string) (bool, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Stat(path, &b)); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// describe reads the identity of a thread. Capabilities count only if they
// belong to our own user namespace: those of another one mean nothing here.
func (o *order) describe(tid uint32) error {
	dir := "/proc/" + strconv.FormatUint(uint64(tid), 10)
	status, err := proc.ReadStatus(dir)
	if err != nil {
		return err
	}
	if o.Groups, err = status.Groups(); err != nil {
		return err
	}
	o.UID, o.GID, o.Caps = int(status.UID.Effective), int(status.GID.Effective), status.Effective
	var mine, theirs unix.Stat_t
	if o.Place, err = placeAt(dir); err != nil {
		return err
	}
	if o.Label, err = labelAt(dir); err != nil {
		return err
	}
	if err := errors.Join(unix.Stat("/proc/thread-self/ns/user", &mine), unix.Stat(dir+"/ns/user", &theirs)); err != nil {
		return err
	}
	if mine.Ino != theirs.Ino {
		o.Caps = 0
	}
	return nil
}
