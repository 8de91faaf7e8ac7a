package afalg

import (
	"slices"
	"strings"
)

// familyNames is indexed by number: every family of include/linux/socket.h up
// to Linux 7 (AF_MAX is 46).
var familyNames = strings.Fields(`
	AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25
	AF_INET6 AF_ROSE AF_DECnet AF_NETBEUI AF_SECURITY AF_KEY AF_NETLINK AF_PACKET AF_ASH AF_ECONET
	AF_ATMSVC AF_RDS AF_SNA AF_IRDA AF_PPPOX AF_WANPIPE AF_LLC AF_IB AF_MPLS AF_CAN
	AF_TIPC AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC
	AF_VSOCK AF_KCM AF_QIPCRTR AF_SMC AF_XDP AF_MCTP`)

var familyAliases = map[string]string{
	"AF_LOCAL": "AF_UNIX",
	"AF_ROUTE": "AF_NETLINK",
}

// FamilyByName returns the number of a socket family ("AF_RXRPC" is 33), by
// the spelling of the kernel's header; AF_LOCAL and AF_ROUTE are aliases.
func FamilyByName(name string) (uint32, bool) {
	if alias, ok := familyAliases[name]; ok {
		name = alias
	}
	return indexOf(familyNames, name)
}

// FamilyName returns the name of a family, never an alias, or "" if the number
// has none.
func FamilyName(n uint32) string { return nameAt(familyNames, n) }

// Families lists every name that FamilyByName knows, aliases last.
func Families() []string {
	return slices.Concat(familyNames, []string{"AF_LOCAL", "AF_ROUTE"})
}
