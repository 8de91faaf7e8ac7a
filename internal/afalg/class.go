package afalg

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sockets is a class of sockets: those of a family, or those of it with a type or
// a protocol besides. What is not given is any.
type Sockets struct {
	Family      uint32
	Type        uint32 // SOCK_RAW is 3, without flags; 0 stands for any
	Protocol    uint32 // only with HasProtocol
	HasProtocol bool
}

// Whole reports whether the class is a whole family.
func (s Sockets) Whole() bool { return s.Type == 0 && !s.HasProtocol }

// Contains reports whether socket(family, typ, protocol) makes a socket of the
// class. As in the kernel, flags in the type do not count.
func (s Sockets) Contains(family, typ, protocol uint32) bool {
	return s.Family == family && (s.Type == 0 || s.Type == typ&SocketTypeMask) && (!s.HasProtocol || s.Protocol == protocol)
}

// Covers reports whether s holds every socket of another class.
func (s Sockets) Covers(other Sockets) bool {
	return s.Family == other.Family && (s.Type == 0 || s.Type == other.Type) &&
		(!s.HasProtocol || other.HasProtocol && s.Protocol == other.Protocol)
}

// Overlaps reports whether some socket is of both classes.
func (s Sockets) Overlaps(other Sockets) bool {
	return s.Family == other.Family && (s.Type == 0 || other.Type == 0 || s.Type == other.Type) &&
		(!s.HasProtocol || !other.HasProtocol || s.Protocol == other.Protocol)
}

// String names the class: "AF_NETLINK protocol NETLINK_XFRM".
func (s Sockets) String() string {
	text := FamilyName(s.Family)
	if text == "" {
		text = "family " + strconv.FormatUint(uint64(s.Family), 10)
	}
	if s.Type != 0 {
		text += " type " + SocketTypeName(s.Type)
	}
	if s.HasProtocol {
		text += " protocol " + ProtocolName(s.Family, s.Protocol)
	}
	return text
}

// Also lists the other ways to ask for the sockets of the class. [src: Linux
// 6.12, net/socket.c, net/smc/smc_inet.c, net/ipv4/af_inet.c, net/unix/af_unix.c,
// net/netlink/af_netlink.c]
func (s Sockets) Also() []Sockets {
	var all []Sockets
	switch s.Family {
	case unix.AF_PACKET:
		// __sock_create turns AF_INET with the obsolete SOCK_PACKET into AF_PACKET.
		if s.Type == 0 || s.Type == unix.SOCK_PACKET {
			all = append(all, Sockets{Family: unix.AF_INET, Type: unix.SOCK_PACKET})
		}
	case unix.AF_SMC:
		// Since 6.11, SMC is also a protocol of both IP families.
		all = append(all, smcOf(unix.AF_INET, s), smcOf(unix.AF_INET6, s))
	case unix.AF_UNIX:
		// unix_create takes SOCK_RAW for SOCK_DGRAM.
		all = append(all, s.twin(unix.SOCK_DGRAM, unix.SOCK_RAW)...)
	case unix.AF_NETLINK:
		// Both types are the same there.
		all = append(all, s.twin(unix.SOCK_DGRAM, unix.SOCK_RAW)...)
		all = append(all, s.twin(unix.SOCK_RAW, unix.SOCK_DGRAM)...)
	case unix.AF_INET, unix.AF_INET6:
		// Protocol 0 is the first that the type has.
		if typ, ok := defaultFor[s.Protocol]; ok && s.HasProtocol && (s.Type == 0 || s.Type == typ) {
			all = append(all, Sockets{Family: s.Family, Type: typ, HasProtocol: true})
		}
	}
	return all
}

// InHook is the class as the kernel asks its security modules about it: what
// AF_INET says of SOCK_PACKET is AF_PACKET there. [src: Linux 6.12, net/socket.c,
// __sock_create]
func (s Sockets) InHook() Sockets {
	if s.Family == unix.AF_INET && s.Type == unix.SOCK_PACKET {
		s.Family = unix.AF_PACKET
	}
	return s
}

// twin is the class with another type, if it has the one.
func (s Sockets) twin(typ, other uint32) []Sockets {
	if s.Type != typ {
		return nil
	}
	s.Type = other
	return []Sockets{s}
}

func smcOf(family uint32, s Sockets) Sockets {
	return Sockets{Family: family, Type: s.Type, Protocol: protocolSMC, HasProtocol: true}
}

const protocolSMC = 256

// defaultFor is the type for which an IP family takes protocol 0 for this one.
var defaultFor = map[uint32]uint32{
	unix.IPPROTO_TCP: unix.SOCK_STREAM, unix.IPPROTO_UDP: unix.SOCK_DGRAM,
	unix.IPPROTO_SCTP: unix.SOCK_SEQPACKET, unix.IPPROTO_DCCP: unix.SOCK_DCCP,
}

// SocketTypeMask leaves the type of a socket without its flags.
const SocketTypeMask = 0xf

// socketTypes is indexed by number, as on every machine but MIPS, which
// exchanges the first two.
var socketTypes = strings.Fields(`
	- SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET SOCK_DCCP - - - SOCK_PACKET`)

// SocketTypes lists the names of the types that a class may have.
func SocketTypes() []string { return named(socketTypes) }

// SocketTypeByName returns the number of a socket type ("SOCK_RAW" is 3).
func SocketTypeByName(name string) (uint32, bool) { return indexOf(socketTypes, name) }

// SocketTypeName returns the name of a type, or its number.
func SocketTypeName(n uint32) string {
	return cmp.Or(nameAt(socketTypes, n), strconv.FormatUint(uint64(n), 10))
}

// constant is a name of the kernel's headers, and its number.
type constant struct {
	name   string
	number uint32
}

var ipProtocols = []constant{
	{"IPPROTO_IP", 0}, {"IPPROTO_ICMP", 1}, {"IPPROTO_IGMP", 2}, {"IPPROTO_TCP", 6}, {"IPPROTO_UDP", 17}, {"IPPROTO_DCCP", 33},
	{"IPPROTO_GRE", 47}, {"IPPROTO_ESP", 50}, {"IPPROTO_AH", 51}, {"IPPROTO_ICMPV6", 58}, {"IPPROTO_L2TP", 115}, {"IPPROTO_SCTP", 132},
	{"IPPROTO_UDPLITE", 136}, {"IPPROTO_RAW", 255}, {"IPPROTO_SMC", protocolSMC}, {"IPPROTO_MPTCP", 262},
}

// protocols has the names of a family's protocols. AF_PACKET has none: bind
// changes the protocol of such a socket.
var protocols = map[uint32][]constant{
	unix.AF_NETLINK: {
		{"NETLINK_ROUTE", 0}, {"NETLINK_USERSOCK", 2}, {"NETLINK_FIREWALL", 3}, {"NETLINK_SOCK_DIAG", 4}, {"NETLINK_NFLOG", 5},
		{"NETLINK_XFRM", 6}, {"NETLINK_SELINUX", 7}, {"NETLINK_ISCSI", 8}, {"NETLINK_AUDIT", 9}, {"NETLINK_FIB_LOOKUP", 10},
		{"NETLINK_CONNECTOR", 11}, {"NETLINK_NETFILTER", 12}, {"NETLINK_IP6_FW", 13}, {"NETLINK_DNRTMSG", 14},
		{"NETLINK_KOBJECT_UEVENT", 15}, {"NETLINK_GENERIC", 16}, {"NETLINK_SCSITRANSPORT", 18}, {"NETLINK_ECRYPTFS", 19},
		{"NETLINK_RDMA", 20}, {"NETLINK_CRYPTO", 21}, {"NETLINK_SMC", 22},
	},
	unix.AF_INET:  ipProtocols,
	unix.AF_INET6: ipProtocols,
	unix.AF_BLUETOOTH: {
		{"BTPROTO_L2CAP", 0}, {"BTPROTO_HCI", 1}, {"BTPROTO_SCO", 2}, {"BTPROTO_RFCOMM", 3},
		{"BTPROTO_BNEP", 4}, {"BTPROTO_CMTP", 5}, {"BTPROTO_HIDP", 6}, {"BTPROTO_AVDTP", 7},
	},
	unix.AF_CAN: {{"CAN_RAW", 1}, {"CAN_BCM", 2}, {"CAN_TP16", 3}, {"CAN_TP20", 4}, {"CAN_MCNET", 5}, {"CAN_ISOTP", 6}, {"CAN_J1939", 7}},
}

// Protocols lists the names of a family's protocols; nil if the family has no
// protocols that a class can name.
func Protocols(family uint32) []string { return namesOf(protocols[family]) }

// ProtocolByName returns the number of a family's protocol.
func ProtocolByName(family uint32, name string) (uint32, bool) {
	return numberOf(protocols[family], name)
}

// ProtocolName returns the name of a family's protocol, or its number.
func ProtocolName(family, n uint32) string { return nameOf(protocols[family], n) }

// SocketOption is an option that setsockopt(2) sets.
type SocketOption struct{ Level, Option uint32 }

// String names the option: "TCP_ULP of SOL_TCP".
func (o SocketOption) String() string {
	level, option := o.Names()
	return option + " of " + level
}

// Names returns the names of level and option, or their numbers.
func (o SocketOption) Names() (level, option string) {
	return nameOf(levels, o.Level), nameOf(options[o.Level], o.Option)
}

var levels = []constant{
	{"SOL_SOCKET", 1}, {"SOL_IP", 0}, {"SOL_TCP", 6}, {"SOL_UDP", 17}, {"SOL_IPV6", 41}, {"SOL_SCTP", 132}, {"SOL_PACKET", 263},
	{"SOL_NETLINK", 270}, {"SOL_ALG", unix.SOL_ALG},
}

// options has those that a policy may name; the number of any other can be given.
var options = map[uint32][]constant{
	unix.SOL_SOCKET: {{"SO_ATTACH_FILTER", 26}, {"SO_ATTACH_BPF", 50}, {"SO_ZEROCOPY", 60}},
	unix.SOL_IP:     {{"IP_OPTIONS", 4}, {"IP_XFRM_POLICY", 17}, {"IPT_SO_SET_REPLACE", 64}},
	unix.SOL_TCP:    {{"TCP_REPAIR", 19}, {"TCP_ULP", 31}, {"TCP_ZEROCOPY_RECEIVE", 35}, {"TCP_AO_ADD_KEY", 38}},
	unix.SOL_UDP:    {{"UDP_ENCAP", 100}},
	unix.SOL_IPV6:   {{"IPV6_XFRM_POLICY", 35}, {"IP6T_SO_SET_REPLACE", 64}},
	unix.SOL_PACKET: {{"PACKET_RX_RING", 5}, {"PACKET_TX_RING", 13}, {"PACKET_FANOUT", 18}},
}

// OptionLevels lists the names of levels.
func OptionLevels() []string { return namesOf(levels) }

// OptionLevelByName returns the number of a level ("SOL_TCP" is 6).
func OptionLevelByName(name string) (uint32, bool) { return numberOf(levels, name) }

// SocketOptions lists the names of options of a level.
func SocketOptions(level uint32) []string { return namesOf(options[level]) }

// SocketOptionByName returns the number of an option of a level.
func SocketOptionByName(level uint32, name string) (uint32, bool) {
	return numberOf(options[level], name)
}

func namesOf(all []constant) (names []string) {
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

func numberOf(all []constant, name string) (uint32, bool) {
	if i := slices.IndexFunc(all, func(c constant) bool { return c.name == name }); i >= 0 {
		return all[i].number, true
	}
	return 0, false
}

func nameOf(all []constant, n uint32) string {
	if i := slices.IndexFunc(all, func(c constant) bool { return c.number == n }); i >= 0 {
		return all[i].name
	}
	return strconv.FormatUint(uint64(n), 10)
}
