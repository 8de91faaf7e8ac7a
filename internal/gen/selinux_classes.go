package gen

import (
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// The classes by which SELinux asks, if its policy has the capability
// extended_socket_class. [src: Linux 6.12, socket_type_to_security_class in
// security/selinux/hooks.c, and security/selinux/include/classmap.h]

const (
	algClass    = "alg_socket"
	usernsClass = "user_namespace" // since Linux 6.1
)

// familyClasses has the families that have a class each, whatever the type.
var familyClasses = classesOf(`
	AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_ATMPVC AF_X25 AF_ROSE AF_DECnet AF_KEY AF_PACKET AF_ATMSVC AF_RDS AF_IRDA
	AF_PPPOX AF_LLC AF_CAN AF_TIPC AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC
	AF_VSOCK AF_KCM AF_QIPCRTR AF_SMC AF_XDP AF_MCTP`)

func classesOf(names string) map[uint32]string {
	classes := map[uint32]string{}
	for _, name := range strings.Fields(names) {
		n, _ := afalg.FamilyByName(name) // a test sees that each has a number
		classes[n] = strings.ToLower(strings.TrimPrefix(name, "AF_")) + "_socket"
	}
	return classes
}

// netlinkClasses has the protocols of AF_NETLINK that have a class.
var netlinkClasses = map[uint32]string{
	0: "netlink_route_socket", 4: "netlink_tcpdiag_socket", 5: "netlink_nflog_socket", 6: "netlink_xfrm_socket",
	7: "netlink_selinux_socket", 8: "netlink_iscsi_socket", 9: "netlink_audit_socket", 10: "netlink_fib_lookup_socket",
	11: "netlink_connector_socket", 12: "netlink_netfilter_socket", 14: "netlink_dnrt_socket",
	15: "netlink_kobject_uevent_socket", 16: "netlink_generic_socket", 18: "netlink_scsitransport_socket",
	20: "netlink_rdma_socket", 21: "netlink_crypto_socket",
}

// mixedClasses hold sockets that have nothing to do with each other. To deny one
// of them for a part of it would stop much that the policy leaves open, such as
// ping with rawip_socket.
var mixedClasses = []string{
	"socket", "netlink_socket", "unix_stream_socket", "unix_dgram_socket",
	"tcp_socket", "udp_socket", "icmp_socket", "sctp_socket", "dccp_socket", "rawip_socket",
}

// socketClass is the class by which SELinux asks about a socket.
func socketClass(s seSocket) string {
	switch s.family {
	case unix.AF_UNIX:
		return unixClass(s.typ)
	case unix.AF_INET, unix.AF_INET6:
		return inetClass(s)
	case unix.AF_NETLINK:
		if class, ok := netlinkClasses[s.protocol]; ok {
			return class
		}
		return "netlink_socket"
	}
	if class, ok := familyClasses[s.family]; ok {
		return class
	}
	return "socket"
}

func unixClass(typ uint32) string {
	switch typ {
	case unix.SOCK_STREAM, unix.SOCK_SEQPACKET:
		return "unix_stream_socket"
	case unix.SOCK_DGRAM, unix.SOCK_RAW:
		return "unix_dgram_socket"
	}
	return "socket"
}

func inetClass(s seSocket) string {
	stream := s.typ == unix.SOCK_STREAM || s.typ == unix.SOCK_SEQPACKET
	dgram := s.typ == unix.SOCK_DGRAM
	switch {
	case s.family == unix.AF_INET && s.typ == unix.SOCK_PACKET:
		return familyClasses[unix.AF_PACKET] // __sock_create makes it AF_PACKET before SELinux is asked
	case s.typ == unix.SOCK_DCCP:
		return "dccp_socket"
	case stream && slices.Contains([]uint32{unix.IPPROTO_IP, unix.IPPROTO_TCP, unix.IPPROTO_MPTCP}, s.protocol):
		return "tcp_socket"
	case stream && s.protocol == unix.IPPROTO_SCTP:
		return "sctp_socket"
	case dgram && slices.Contains([]uint32{unix.IPPROTO_IP, unix.IPPROTO_UDP}, s.protocol):
		return "udp_socket"
	case dgram && slices.Contains([]uint32{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}, s.protocol):
		return "icmp_socket"
	}
	return "rawip_socket"
}

// seSocket is what a program asks for.
type seSocket struct{ family, typ, protocol uint32 }

func (s seSocket) in(classes []afalg.Sockets) bool {
	return slices.ContainsFunc(classes, func(c afalg.Sockets) bool { return c.Contains(s.family, s.typ, s.protocol) })
}

// classMembers lists the sockets of each class: of every family and type, with
// each protocol that the kernel tells apart anywhere. Two types have few.
var classMembers = sync.OnceValue(func() map[string][]seSocket {
	members := map[string][]seSocket{}
	for family := range uint32(len(afalg.Families())) {
		for _, typ := range []uint32{1, 2, 3, 4, 5, 6, unix.SOCK_PACKET} {
			for protocol := range uint32(unix.IPPROTO_MPTCP + 1) {
				if typ >= unix.SOCK_DCCP && protocol != 0 && protocol != unix.IPPROTO_DCCP {
					continue
				}
				s := seSocket{family, typ, protocol}
				members[socketClass(s)] = append(members[socketClass(s)], s)
			}
		}
	}
	return members
})

// extent says how much of a class some sockets are.
type extent int

const (
	noneOf extent = iota
	partOf
	wholeOf
)

func extentOf(class string, sockets []afalg.Sockets) extent {
	members := classMembers()[class]
	outside := func(s seSocket) bool { return !s.in(sockets) }
	switch {
	case !slices.ContainsFunc(members, func(s seSocket) bool { return s.in(sockets) }):
		return noneOf
	case slices.ContainsFunc(members, outside):
		return partOf
	}
	return wholeOf
}

// socketPermissions are those that every class of sockets has. All are denied,
// so that a socket that was made before, or by another domain, is of no use.
var socketPermissions = strings.Fields(`
	ioctl read write create getattr setattr lock relabelfrom relabelto append map
	bind connect listen accept getopt setopt shutdown recvfrom sendto name_bind`)

func permissionsOf(class string) []string {
	if class == usernsClass {
		return []string{"create"}
	}
	return socketPermissions
}
