package afalg

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketsContain(t *testing.T) {
	xfrm := Sockets{Family: unix.AF_NETLINK, Protocol: unix.NETLINK_XFRM, HasProtocol: true}
	raw := Sockets{Family: unix.AF_PACKET, Type: unix.SOCK_RAW}
	for _, tc := range []struct {
		class                 Sockets
		family, typ, protocol uint32
		want                  bool
	}{
		{xfrm, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, true},
		{xfrm, unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_XFRM, true},
		{xfrm, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, false},
		{xfrm, unix.AF_UNIX, unix.SOCK_RAW, unix.NETLINK_XFRM, false},
		{raw, unix.AF_PACKET, unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 768, true},
		{raw, unix.AF_PACKET, unix.SOCK_DGRAM, 0, false},
		{Sockets{Family: unix.AF_PACKET}, unix.AF_PACKET, 15, 1, true},
		{Sockets{Family: unix.AF_NETLINK, HasProtocol: true}, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, true},
		{Sockets{Family: unix.AF_NETLINK, HasProtocol: true}, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, false},
	} {
		if got := tc.class.Contains(tc.family, tc.typ, tc.protocol); got != tc.want {
			t.Errorf("%v, %d, %#x, %d: %v", tc.class, tc.family, tc.typ, tc.protocol, got)
		}
	}
}

func TestSocketsAlso(t *testing.T) {
	for _, tc := range []struct {
		class Sockets
		want  []string
	}{
		{Sockets{Family: unix.AF_PACKET}, []string{"AF_INET type SOCK_PACKET"}},
		{Sockets{Family: unix.AF_PACKET, Type: unix.SOCK_RAW}, nil},
		{Sockets{Family: unix.AF_SMC}, []string{"AF_INET protocol IPPROTO_SMC", "AF_INET6 protocol IPPROTO_SMC"}},
		{Sockets{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP, HasProtocol: true}, []string{"AF_INET type SOCK_DGRAM protocol IPPROTO_IP"}},
		{Sockets{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_UDP, HasProtocol: true}, nil},
		{Sockets{Family: unix.AF_INET, Type: unix.SOCK_STREAM}, nil},
		{Sockets{Family: unix.AF_UNIX, Type: unix.SOCK_DGRAM}, []string{"AF_UNIX type SOCK_RAW"}},
		{Sockets{Family: unix.AF_NETLINK, Type: unix.SOCK_RAW, Protocol: 6, HasProtocol: true}, []string{"AF_NETLINK type SOCK_DGRAM protocol NETLINK_XFRM"}},
	} {
		var got []string
		for _, s := range tc.class.Also() {
			got = append(got, s.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v: %q, want %q", tc.class, got, tc.want)
		}
	}
}

func TestSocketTypeOn(t *testing.T) {
	for _, abi := range ABIs() {
		stream, raw := abi.SocketTypeOn(unix.SOCK_STREAM), abi.SocketTypeOn(unix.SOCK_RAW)
		want := uint32(1)
		if abi.GOARCH == "mips" || abi.GOARCH == "mipsle" || abi.GOARCH == "mips64" || abi.GOARCH == "mips64le" {
			want = 2
		}
		if abi.GOARCH != "" && (stream != want || raw != 3) {
			t.Errorf("%s: SOCK_STREAM %d, SOCK_RAW %d", abi.Name, stream, raw)
		}
	}
}
