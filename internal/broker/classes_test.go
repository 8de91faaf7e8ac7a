package broker_test

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// closing is the plan of the tests with further denials.
func closing(change func(*plan.Plan)) *plan.Plan {
	p := testPlan()
	change(p)
	return p
}

func rule(change func(*policy.Rule)) policy.Rule {
	r := policy.Rule{Name: "classes", Anyone: true}
	change(&r)
	return r
}

var tcpULP = policy.SocketOption{Level: "SOL_TCP", Option: "TCP_ULP"}

// The helper makes no socket of a class that the policy closes, by any of its
// names, and does for a workload that a rule allows it.
func TestSocketcallClasses(t *testing.T) {
	datagrams := policy.Socket{Family: "AF_INET", Type: "SOCK_DGRAM"}
	classes := closing(func(p *plan.Plan) {
		p.Sockets = []policy.Socket{datagrams, {Family: "AF_NETLINK", Protocol: "NETLINK_ROUTE"}, {Family: "AF_INET6", Protocol: "IPPROTO_TCP"}}
		p.Families = []policy.Family{{Name: "AF_PACKET", Number: unix.AF_PACKET}}
	})
	granted := closing(func(p *plan.Plan) {
		p.Sockets = classes.Sockets
		p.Rules = []policy.Rule{rule(func(r *policy.Rule) { r.Sockets = []policy.Socket{datagrams} })}
	})
	f, _ := serve32(t)
	const no = unix.EAFNOSUPPORT
	for _, test := range []struct {
		family, kind, protocol uint32
		free, closed, granted  unix.Errno
	}{
		{unix.AF_INET, unix.SOCK_DGRAM, 0, 0, no, 0},
		{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, unix.IPPROTO_UDP, 0, no, 0},
		{unix.AF_INET, unix.SOCK_STREAM, 0, 0, 0, 0},
		{unix.AF_INET, unix.SOCK_PACKET, 0x300, 0, no, 0}, // AF_PACKET by its obsolete name
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, 0, no, no},
		{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_ROUTE, 0, no, no},
		{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, 0, no, no},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 0, no, no}, // TCP by default
		{unix.AF_INET6, unix.SOCK_DGRAM, 0, 0, 0, 0},
		{unix.AF_UNIX, unix.SOCK_STREAM, 0, 0, 0, 0},
	} {
		for _, try := range []struct {
			plan *plan.Plan
			want unix.Errno
		}{{testPlan(), test.free}, {classes, test.closed}, {granted, test.granted}} {
			f.workload.SetPlan(try.plan)
			fd, errno := f.socketcall(callSocket, test.family, test.kind, test.protocol)
			if errno != try.want {
				t.Errorf("family %d, type %#x, protocol %d: %v, want %v", test.family, test.kind, test.protocol, errno, try.want)
			}
			if errno == 0 {
				f.call(nr32Close, uint64(fd))
			}
		}
	}
	f.workload.SetPlan(closing(func(p *plan.Plan) { p.Sockets = []policy.Socket{{Family: "AF_UNIX", Type: "SOCK_STREAM"}} }))
	if _, errno := f.socketcall(callSocketpair, unix.AF_UNIX, unix.SOCK_STREAM, 0, uint32(f.room+512)); errno != no {
		t.Errorf("a pair of a class that is closed: %v", errno)
	}
	if _, errno := f.socketcall(callSocketpair, unix.AF_UNIX, unix.SOCK_DGRAM, 0, uint32(f.room+512)); errno != 0 {
		t.Errorf("a pair of another: %v", errno)
	}
}

// A rule that allows classes alone gives its holder no placeholder.
func TestClassesGiveNoPlaceholder(t *testing.T) {
	f, _ := serve32(t)
	for _, held := range []policy.Rule{
		rule(func(r *policy.Rule) {
			r.Sockets = []policy.Socket{{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM"}, {Family: "AF_ALG"}}
		}),
		rule(func(r *policy.Rule) { r.SocketOptions = []policy.SocketOption{tcpULP} }),
		rule(func(r *policy.Rule) { r.UserNamespaces = true }),
	} {
		f.workload.SetPlan(closing(func(p *plan.Plan) { p.Rules = []policy.Rule{held} }))
		for _, ask := range []func() (int, unix.Errno){
			func() (int, unix.Errno) { return f.socketcall(callSocket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
			func() (int, unix.Errno) { return f.call(nr32Socket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
		} {
			if fd, errno := ask(); errno != unix.EAFNOSUPPORT {
				t.Errorf("%+v: descriptor %d, %v", held, fd, errno)
			}
		}
	}
}

// stream makes a TCP socket by socketcall.
func (f *fixture) stream() uint32 {
	f.Helper()
	fd, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_STREAM, 0)
	if errno != 0 {
		f.Fatal(errno)
	}
	return uint32(fd)
}

func (f *fixture) set(fd, level, option, length uint32) unix.Errno {
	f.Helper()
	_, errno := f.socketcall(callSetsockopt, fd, level, option, uint32(f.room), length)
	return errno
}

// Options that the policy closes cannot be set by socketcall, which hides them
// from the filter. ENOENT is the kernel's answer about a protocol that it does
// not know: the call has reached it.
func TestSocketcallOptions(t *testing.T) {
	f, _ := serve32(t)
	fd := f.stream()
	f.at([]byte("nosuch\x00\x00"))
	try := func(want unix.Errno) {
		t.Helper()
		if errno := f.set(fd, unix.SOL_TCP, unix.TCP_ULP, 6); errno != want {
			t.Errorf("TCP_ULP: %v, want %v", errno, want)
		}
	}
	try(unix.ENOENT) // control: nothing closes it
	options := []policy.SocketOption{tcpULP}
	f.workload.SetPlan(closing(func(p *plan.Plan) { p.SocketOptions = options }))
	try(unix.ENOPROTOOPT)
	f.workload.SetPlan(nil)
	try(unix.ENOPROTOOPT)
	f.workload.SetPlan(closing(func(p *plan.Plan) {
		p.SocketOptions = options
		p.Rules = []policy.Rule{rule(func(r *policy.Rule) { r.SocketOptions = options })}
	}))
	try(unix.ENOENT)
}

// Where an option is closed, the broker sets the others itself: after CONTINUE
// the kernel would read the arguments again. It sets those that need no
// privilege, for they would be its own.
func TestSocketcallOtherOptions(t *testing.T) {
	f, _ := serve32(t)
	f.workload.SetPlan(closing(func(p *plan.Plan) { p.SocketOptions = []policy.SocketOption{tcpULP} }))
	fd := f.stream()
	f.at(binary.NativeEndian.AppendUint32(nil, 1))
	for _, test := range []struct {
		level, option, length uint32
		want                  unix.Errno
	}{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 4, 0},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 4, 0},
		{unix.SOL_TCP, unix.TCP_NODELAY, 4, 0},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 2, unix.EINVAL},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1 << 31, unix.EINVAL},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 4096, unix.EINVAL},
		{unix.SOL_SOCKET, unix.SO_MARK, 4, unix.ENOPROTOOPT},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4, unix.ENOPROTOOPT},
		{unix.SOL_SOCKET, unix.SO_DEBUG, 4, unix.ENOPROTOOPT},
		{unix.SOL_IP, unix.IP_TRANSPARENT, 4, unix.ENOPROTOOPT},
		{unix.SOL_TCP, unix.TCP_REPAIR, 4, unix.ENOPROTOOPT},
	} {
		if errno := f.set(fd, test.level, test.option, test.length); errno != test.want {
			t.Errorf("level %d, option %d, %d bytes: %v, want %v", test.level, test.option, test.length, errno, test.want)
		}
	}
	for _, option := range []uint64{unix.SO_REUSEADDR, unix.SO_KEEPALIVE} {
		if got := binary.NativeEndian.Uint32(f.option32(fd, option, 4)); got != 1 {
			t.Errorf("option %d is %d after it was set", option, got)
		}
	}
	f.at(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 7), 250_000))
	if errno := f.set(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, 8); errno != 0 {
		t.Errorf("SO_RCVTIMEO: %v", errno)
	}
	if got := f.option32(fd, unix.SO_RCVTIMEO, 8); binary.NativeEndian.Uint32(got) != 7 || binary.NativeEndian.Uint32(got[4:]) != 252_000 && binary.NativeEndian.Uint32(got[4:]) != 250_000 {
		t.Errorf("SO_RCVTIMEO is % x", got)
	}
	for _, at := range []uint32{0, uint32(f.room + roomSize - 2)} {
		if _, errno := f.socketcall(callSetsockopt, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, at, 4); errno != unix.EFAULT {
			t.Errorf("a value at %#x: %v", at, errno)
		}
	}
	if _, errno := f.socketcall(callSetsockopt, 999, unix.SOL_SOCKET, unix.SO_KEEPALIVE, uint32(f.room), 4); errno != unix.EBADF {
		t.Errorf("no descriptor: %v", errno)
	}
}

func (f *fixture) option32(fd uint32, name uint64, size uint32) []byte {
	f.Helper()
	value, length := f.room+256, f.room+512
	f.putAt(length, binary.NativeEndian.AppendUint32(nil, size))
	if _, errno := f.call(nr32Getsockopt, uint64(fd), unix.SOL_SOCKET, name, value, length); errno != 0 {
		f.Fatal(errno)
	}
	return f.peek(value, int(size))
}

// The arguments change while the broker looks at them, from an option that is
// open to one that is closed, and back. What it read first is what holds.
func TestSocketcallOptionsRace(t *testing.T) {
	f, _ := serve32(t)
	f.workload.SetPlan(closing(func(p *plan.Plan) { p.SocketOptions = []policy.SocketOption{tcpULP} }))
	fd := f.stream()
	f.at([]byte("nosuch\x00\x00"))
	words, err := binary.Append(nil, binary.NativeEndian, []uint32{fd, unix.SOL_TCP, unix.TCP_NODELAY, uint32(f.room), 6})
	if err != nil {
		t.Fatal(err)
	}
	args := f.put(words)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, option := range []uint32{unix.TCP_ULP, unix.TCP_NODELAY} {
				notify.WriteMemory(f.tid, args+8, binary.NativeEndian.AppendUint32(nil, option))
			}
		}
	}()
	answers := map[unix.Errno]int{}
	for begun := time.Now(); time.Since(begun) < time.Second; {
		_, errno := f.call(nr32Socketcall, callSetsockopt, args)
		answers[errno]++
	}
	close(stop)
	<-stopped
	if answers[unix.ENOENT] > 0 || answers[unix.ENOPROTOOPT] == 0 || answers[0] == 0 {
		t.Errorf("answers %v", answers)
	}
}
