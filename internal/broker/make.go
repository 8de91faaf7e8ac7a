package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Sockets makes the sockets that a workload asks for through socketcall, in
// another process. That the family is not AF_ALG was read from memory, so the
// call cannot go on in the kernel: the caller could change it meanwhile.
//
// A socket belongs to who makes it: its network namespace, its user and its
// capabilities are those of that thread for good. So the maker takes on the
// caller's before, and refuses where it cannot.
type Sockets struct {
	mu     sync.Mutex
	socket int
}

// NewSockets talks to MakeSockets in another process, over a socket of type
// SOCK_SEQPACKET.
func NewSockets(socket int) *Sockets { return &Sockets{socket: socket} }

// order is what a socket is made of.
type order struct {
	Family, Kind, Protocol int32
	Pair                   bool
	UID, GID               int
	Groups                 []int
	Caps                   uint64 // effective, of the maker's own user namespace
	// Same says that the caller's network namespace is the maker's; else a
	// descriptor of it comes along.
	Same bool
}

const maxOrder = 1 << 20 // 65,536 groups, at most

// errNoMaker refuses what would take a helper that is not there.
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
	m.mu.Lock()
	defer m.mu.Unlock()
	// What goes wrong on the way is no errno of the call.
	if err := notify.SendFDs(m.socket, text, along...); err != nil {
		return nil, fmt.Errorf("ask the helper that makes sockets: %v", err)
	}
	reply := make([]byte, 4)
	n, fds, err := notify.ReceiveFDs(m.socket, reply, 2)
	switch {
	case err != nil:
		return nil, fmt.Errorf("hear from the helper that makes sockets: %v", err)
	case n != len(reply):
		notify.CloseAll(fds)
		return nil, errors.New("the helper that makes sockets has ended")
	}
	if errno := unix.Errno(binary.NativeEndian.Uint32(reply)); errno != 0 {
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

// MakeSockets is the helper's side, until the other one is closed.
func MakeSockets(socket int) error {
	buf := make([]byte, maxOrder)
	for {
		n, along, err := notify.ReceiveFDs(socket, buf, 1)
		if err != nil || n == 0 {
			return err
		}
		fds, err := fulfil(buf[:n], along)
		notify.CloseAll(along)
		var errno uint32
		if err != nil {
			errno = errnoOf(err).Number
		}
		err = notify.SendFDs(socket, binary.NativeEndian.AppendUint32(nil, errno), fds...)
		notify.CloseAll(fds)
		if err != nil {
			return err
		}
	}
}

func fulfil(text []byte, along []int) (fds []int, err error) {
	var o order
	if err := json.Unmarshal(text, &o); err != nil || o.Same != (len(along) == 0) {
		return nil, unix.EINVAL
	}
	onThread(func() {
		if err = o.takeOn(along); err == nil {
			fds, err = o.create()
		}
	})
	return fds, err
}

// onThread calls f on a thread that ends with it, and that nobody else uses: it
// is not unlocked before its goroutine ends. The main thread would not end, and
// what it is shows as what the whole process is.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func (o order) create() ([]int, error) {
	kind := int(o.Kind) | unix.SOCK_CLOEXEC
	if o.Family == afalg.Family {
		return nil, unix.EAFNOSUPPORT
	}
	if o.Pair {
		ends, err := unix.Socketpair(int(o.Family), kind, int(o.Protocol))
		if err != nil {
			return nil, err
		}
		return ends[:], nil
	}
	fd, err := unix.Socket(int(o.Family), kind, int(o.Protocol))
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

// takeOn makes this thread what the caller is. Only the raw calls act on one
// thread.
func (o order) takeOn(namespace []int) error {
	if len(namespace) > 0 {
		if err := unix.Setns(namespace[0], unix.CLONE_NEWNET); err != nil {
			return unix.EACCES
		}
	}
	privileged := unix.Geteuid() == 0
	if !privileged && (o.UID != unix.Geteuid() || o.GID != unix.Getegid()) {
		return unix.EACCES
	}
	if privileged {
		if err := o.identity(); err != nil {
			return unix.EACCES
		}
	}
	return capabilities(o.Caps)
}

func (o order) identity() error {
	groups := make([]uint32, len(o.Groups)+1) // never empty, for its address
	for i, g := range o.Groups {
		groups[i] = uint32(g)
	}
	return errors.Join(
		unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0),
		notify.SetThreadIDs(o.UID, o.GID, groups[:len(o.Groups)]),
	)
}

// capabilities keeps those of this thread that the caller has, and no others.
func capabilities(wanted uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for i := range data {
		kept := data[i].Permitted & uint32(wanted>>(32*i))
		data[i] = unix.CapUserData{Effective: kept, Permitted: kept}
	}
	return unix.Capset(&header, &data[0])
}

// make answers a call for a socket, or a pair, of an ordinary family.
func (s *server) make(c *call, both bool) reply {
	if !makes(s.workload.plan.Load(), int32(c.args[0]), int32(c.args[2])) {
		return s.refuse(c)
	}
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

// makes tells whether a socket is of the kinds that are made at all. A profile
// may close others to 64-bit programs, and what it says is not known here.
func makes(p *plan.Plan, family, protocol int32) bool {
	switch family {
	case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6:
	case unix.AF_NETLINK:
		if protocol != unix.NETLINK_ROUTE {
			return false
		}
	default:
		return false
	}
	return p != nil && !p.Closes(uint32(family))
}

// socketpair answers the call in which the family is behind a pointer.
func (s *server) socketpair(c *call) reply { return s.make(c, true) }

// addBoth puts two descriptors into the caller's table, and their numbers where
// it wants them. If that fails, the descriptors stay behind, unused: the
// broker cannot take them back.
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
	if err := o.describe(c.n.TID); err != nil {
		return nil, fmt.Errorf("find out who wants a socket (thread %d): %w", c.n.TID, err)
	}
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", c.n.TID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find the network namespace of thread %d: %w", c.n.TID, err)
	}
	defer unix.Close(namespace)
	if o.Same, err = sameFile(namespace, "/proc/thread-self/ns/net"); err != nil {
		return nil, fmt.Errorf("compare network namespaces: %w", err)
	}
	if !s.listener.Valid(c.n.ID) {
		return nil, unix.ESRCH
	}
	return s.o.Sockets.make(o, namespace)
}

func sameFile(fd int, path string) (bool, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Stat(path, &b)); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// describe reads who a thread is. Capabilities count only where they are of
// our own user namespace: those of another one mean nothing here.
func (o *order) describe(tid uint32) error {
	dir := "/proc/" + strconv.FormatUint(uint64(tid), 10)
	data, err := os.ReadFile(dir + "/status")
	if err != nil {
		return err
	}
	found := 0
	for line := range strings.Lines(string(data)) {
		key, text, _ := strings.Cut(line, ":")
		fields := strings.Fields(text)
		switch {
		case key == "Groups":
			if o.Groups, err = integers(fields); err != nil {
				return err
			}
		case len(fields) == 4 && (key == "Uid" || key == "Gid"): // real, effective, saved, file system
			ids, err := integers(fields)
			if err != nil {
				return err
			}
			if key == "Uid" {
				o.UID = ids[1]
			} else {
				o.GID = ids[1]
			}
			found++
		case key == "CapEff" && len(fields) == 1:
			if o.Caps, err = strconv.ParseUint(fields[0], 16, 64); err != nil {
				return err
			}
			found++
		}
	}
	if found != 3 {
		return errors.New("its status does not tell")
	}
	var mine, theirs unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/thread-self/ns/user", &mine), unix.Stat(dir+"/ns/user", &theirs)); err != nil {
		return err
	}
	if mine.Ino != theirs.Ino {
		o.Caps = 0
	}
	return nil
}

func integers(fields []string) ([]int, error) {
	list := make([]int, len(fields))
	for i, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, err
		}
		list[i] = int(n)
	}
	return list, nil
}
