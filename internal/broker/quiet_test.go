package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sockaddr is an address of an ordinary family as the kernel takes it.
func sockaddr(family uint16, rest []byte, length int) []byte {
	b := make([]byte, length)
	binary.NativeEndian.PutUint16(b, family)
	copy(b[2:], rest)
	return b
}

// Calls that have nothing to do with AF_ALG cost no notification.
func TestNothingTrapped(t *testing.T) {
	f := serve(t)
	f.bound()
	f.takeReported()
	name := filepath.Join(t.TempDir(), "s")
	for i, family := range []uint64{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_NETLINK} {
		kind := uint64(unix.SOCK_DGRAM)
		fd, errno := f.call(unix.SYS_SOCKET, family, kind, 0)
		if errno != 0 {
			t.Errorf("socket of family %d: %v", family, errno)
			continue
		}
		path := fmt.Sprint(name, i)
		b := map[uint64][]byte{
			unix.AF_INET:    sockaddr(unix.AF_INET, nil, unix.SizeofSockaddrInet4),
			unix.AF_INET6:   sockaddr(unix.AF_INET6, nil, unix.SizeofSockaddrInet6),
			unix.AF_UNIX:    sockaddr(unix.AF_UNIX, []byte(path), 2+len(path)+1),
			unix.AF_NETLINK: sockaddr(unix.AF_NETLINK, nil, unix.SizeofSockaddrNetlink),
		}[family]
		if _, errno := f.call(unix.SYS_BIND, uint64(fd), f.put(b), uint64(len(b))); errno != 0 {
			t.Errorf("bind of family %d: %v", family, errno)
		}
		if _, errno := f.call(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, f.put([]byte{1, 0, 0, 0}), 4); errno != 0 {
			t.Errorf("setsockopt of family %d: %v", family, errno)
		}
		f.close(fd)
	}
	for _, nr := range []uint64{unix.SYS_SOCKETPAIR} {
		if _, errno := f.call(nr, unix.AF_UNIX, unix.SOCK_STREAM, 0, f.room); errno != 0 {
			t.Errorf("socketpair: %v", errno)
		}
	}
	f.acceptWithAddress()
	records, answered, failed := f.takeReported()
	if records != nil || answered != nil || failed != nil {
		t.Errorf("records %v, answered %v, failed %v", records, answered, failed)
	}
}

// listening is a listening Unix socket.
func (p *proc) listening() (fd int) {
	p.Helper()
	fd, errno1 := p.call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	_, errno2 := p.call(unix.SYS_BIND, uint64(fd), p.put(sockaddr(unix.AF_UNIX, nil, 2)), 2) // the kernel chooses a name
	_, errno3 := p.call(unix.SYS_LISTEN, uint64(fd), 10)
	size := p.put(binary.NativeEndian.AppendUint32(nil, 110))
	_, errno4 := p.call(unix.SYS_GETSOCKNAME, uint64(fd), p.room, size)
	peer, errno5 := p.call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	_, errno6 := p.call(unix.SYS_CONNECT, uint64(peer), p.room, 8)
	for i, errno := range []unix.Errno{errno1, errno2, errno3, errno4, errno5, errno6} {
		if errno != 0 {
			p.Fatalf("step %d: %v", i, errno)
		}
	}
	return fd
}

func (p *proc) acceptWithAddress() {
	p.Helper()
	fd := p.listening()
	if _, errno := p.call(unix.SYS_ACCEPT4, uint64(fd), p.room, p.put([]byte{110, 0, 0, 0}), 0); errno != 0 {
		p.Errorf("accept with an address: %v", errno)
	}
}

// A trapped call on anything but a placeholder goes on in the kernel.
func TestGoesOn(t *testing.T) {
	f := serve(t)
	f.takeReported()
	listening := f.listening()
	if _, errno := f.accept(listening, unix.SOCK_CLOEXEC); errno != 0 {
		t.Errorf("accept without an address: %v", errno)
	}
	unbound, _ := f.call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	path := append([]byte{0}, bytes.Repeat([]byte("x"), 85)...)
	path = append(path, fmt.Sprint(f.pid)...)[len(fmt.Sprint(f.pid)):]
	path[0] = 0
	if _, errno := f.call(unix.SYS_BIND, uint64(unbound), f.put(sockaddr(unix.AF_UNIX, path, 88)), 88); errno != 0 {
		t.Errorf("bind of a Unix socket with 88 bytes: %v", errno)
	}
	if _, errno := f.call(unix.SYS_SETSOCKOPT, uint64(unbound), unix.SOL_ALG, unix.ALG_SET_KEY, f.room, 4); errno != unix.EOPNOTSUPP && errno != unix.ENOPROTOOPT {
		t.Errorf("setsockopt(SOL_ALG) of a Unix socket: %v", errno)
	}
	records, answered, failed := f.takeReported()
	if got, want := fmt.Sprint(answered), "[accept4 bind setsockopt]"; got != want || records != nil || failed != nil {
		t.Errorf("records %v, answered %v, failed %v", records, answered, failed)
	}
}
