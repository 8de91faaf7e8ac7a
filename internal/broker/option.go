package broker

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// option answers setsockopt by socketcall on a socket that is no placeholder. As
// long as no option is closed to the workload, the kernel goes on. Otherwise it must not:
// it would read the arguments again, and they may have changed to those of an
// option that is closed. The broker then sets the option on the caller's socket
// itself, if that takes no privilege: it would be the broker's.
func (s *server) option(c *call) reply {
	if !c.indirect { // in registers, which the filter has seen
		return goOn
	}
	p := s.workload.plan.Load()
	closed := closedOptions(p)
	if p != nil && len(closed) == 0 {
		return goOn
	}
	level, name, length := uint32(c.args[1]), uint32(c.args[2]), uint32(c.args[4])
	harmless := harmlessOptions[afalg.SocketOption{Level: level, Option: name}]
	isClosed := slices.ContainsFunc(closed, func(o afalg.SocketOption) bool { return c.abi.SocketLevelOn(o.Level) == level && o.Option == name })
	if p == nil || isClosed || harmless == 0 {
		return fail(unix.ENOPROTOOPT)
	}
	if length > maxOption {
		return fail(unix.EINVAL)
	}
	data := make([]byte, length)
	if err := notify.ReadMemory(c.n.TID, c.args[3], data); err != nil {
		return s.unreadable(c, err)
	}
	if harmless == optionTime && c.abi.LongSize() == 4 {
		data = widened(data)
	}
	fd, err := copyOf(c.n.TID, int32(c.args[0]))
	if err == nil {
		defer unix.Close(fd)
		err = unix.SetsockoptString(fd, int(level), int(name), string(data))
	}
	if err != nil {
		return fail(unix.Errno(errnoOf(err).Number))
	}
	return value(0)
}

// closedOptions lists the options that the workload may not set.
func closedOptions(p *plan.Plan) []afalg.SocketOption {
	if p == nil {
		return nil
	}
	return slices.DeleteFunc(p.ClosedOptions(), func(o afalg.SocketOption) bool { return plan.DecideOption(p, p.Rules, o).Allowed })
}

// maxOption is larger than the value of any option that the broker sets.
const maxOption = 128

// optionKind says what the value of an option is.
type optionKind int

const (
	optionPlain optionKind = iota + 1 // the same for every ABI
	optionTime                        // two longs
)

// harmlessOptions are those that programs set, and that ask for no privilege
// and no other descriptor. [src: Linux 6.12, net/core/sock.c sk_setsockopt,
// net/ipv4/tcp.c do_tcp_setsockopt, net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c]
var harmlessOptions = func() map[afalg.SocketOption]optionKind {
	m := map[afalg.SocketOption]optionKind{}
	for level, options := range map[uint32][]uint32{
		unix.SOL_SOCKET: {unix.SO_REUSEADDR, unix.SO_REUSEPORT, unix.SO_KEEPALIVE, unix.SO_BROADCAST, unix.SO_LINGER,
			unix.SO_OOBINLINE, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_RCVLOWAT, unix.SO_PASSCRED, unix.SO_DONTROUTE},
		unix.IPPROTO_TCP: {unix.TCP_NODELAY, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT,
			unix.TCP_USER_TIMEOUT, unix.TCP_DEFER_ACCEPT, unix.TCP_SYNCNT, unix.TCP_QUICKACK, unix.TCP_MAXSEG},
		unix.IPPROTO_IP:   {unix.IP_TOS, unix.IP_TTL, unix.IP_PKTINFO, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_MULTICAST_TTL, unix.IP_MULTICAST_LOOP},
		unix.IPPROTO_IPV6: {unix.IPV6_V6ONLY, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_MULTICAST_HOPS, unix.IPV6_MULTICAST_LOOP},
	} {
		for _, o := range options {
			m[afalg.SocketOption{Level: level, Option: o}] = optionPlain
		}
	}
	for _, o := range []uint32{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		m[afalg.SocketOption{Level: unix.SOL_SOCKET, Option: o}] = optionTime
	}
	return m
}()

// widened turns a time of a 32-bit program into one of the broker's own ABI. A
// value that is no time stays, and the kernel refuses it.
func widened(value []byte) []byte {
	if len(value) < 8 {
		return value
	}
	var wide []byte
	for _, word := range [][]byte{value[:4], value[4:8]} {
		wide = binary.NativeEndian.AppendUint64(wide, uint64(int64(int32(binary.NativeEndian.Uint32(word)))))
	}
	return wide
}
