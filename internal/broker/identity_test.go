package broker_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func (p *proc) peek(at uint64, size int) []byte {
	p.Helper()
	b := make([]byte, size)
	if err := notify.ReadMemory(p.tid, at, b); err != nil {
		p.Fatal(err)
	}
	return b
}

// option reads an option of a socket of the process.
func (p *proc) option(fd int, name uint64, size uint32) []byte {
	p.Helper()
	at := p.room + 1024
	length := p.at(binary.NativeEndian.AppendUint32(nil, size))
	if _, errno := p.call(nr32Getsockopt, uint64(fd), unix.SOL_SOCKET, name, at, uint64(length)); errno != 0 {
		p.Errorf("getsockopt %d: %v", name, errno)
	}
	return p.peek(at, int(size))
}

// become changes the user of a 32-bit process, and its capabilities with it.
func (p *proc) become(id uint32, groups ...uint32) {
	p.Helper()
	b, err := binary.Append(nil, binary.NativeEndian, groups)
	if err != nil {
		p.Fatal(err)
	}
	_, errno1 := p.call(nr32Setgroups, uint64(len(groups)), uint64(p.at(b)))
	_, errno2 := p.call(nr32Setresgid, uint64(id), uint64(id), uint64(id))
	_, errno3 := p.call(nr32Setresuid, uint64(id), uint64(id), uint64(id))
	if errno1 != 0 || errno2 != 0 || errno3 != 0 {
		p.Fatal(errno1, errno2, errno3)
	}
}

// pairOwner returns the owner of a pair, as its sockets show it.
func (p *proc) pairOwner() (uid, gid uint32, groups string) {
	p.Helper()
	out := uint32(p.room + 512)
	if _, errno := p.socketcall(callSocketpair, unix.AF_UNIX, unix.SOCK_STREAM, 0, out); errno != 0 {
		p.Fatal(errno)
	}
	fd := int(binary.NativeEndian.Uint32(p.peek(uint64(out), 4)))
	owner := p.option(fd, unix.SO_PEERCRED, 12)
	list := p.option(fd, unix.SO_PEERGROUPS, 8)
	return binary.NativeEndian.Uint32(owner[4:]), binary.NativeEndian.Uint32(owner[8:]), fmt.Sprint(list)
}

// Sockets belong to their caller, whichever process made them.
func TestMadeAsCaller(t *testing.T) {
	f, m := serve32(t)
	before := identityOf(t, m.Process.Pid)
	if os.Geteuid() == 0 {
		f.become(1234, 77, 78)
	}
	uid, gid, groups := f.pairOwner()
	switch {
	case os.Geteuid() != 0 && (uid != uint32(os.Geteuid()) || gid != uint32(os.Getegid())):
		t.Errorf("made by user %d, group %d", uid, gid)
	case os.Geteuid() == 0 && (uid != 1234 || gid != 1234 || groups != "[77 0 0 0 78 0 0 0]"):
		t.Errorf("made by user %d, group %d, groups %s", uid, gid, groups)
	}
	if _, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); errno != unix.EPERM {
		t.Errorf("a raw socket without CAP_NET_RAW: %v", errno)
	}
	for range 200 {
		fd, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_DGRAM, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		f.call(nr32Close, uint64(fd))
	}
	// A short-lived thread took on the identity, and never the process.
	if after := identityOf(t, m.Process.Pid); after != before {
		t.Errorf("the helper was %s, and is %s", before, after)
	}
	if n := threads(t, m.Process.Pid); n > 40 {
		t.Errorf("the helper has %d threads", n)
	}
}

func TestMadeWithCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		return // TestMadeAsCaller says the rest
	}
	f, _ := serve32(t)
	if _, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); errno != 0 {
		t.Errorf("a raw socket with CAP_NET_RAW: %v", errno)
	}
	if uid, gid, groups := f.pairOwner(); uid != 0 || gid != uint32(os.Getegid()) {
		t.Errorf("made by user %d, group %d, groups %s", uid, gid, groups)
	}
}

// The network namespace is the caller's too; an ordinary user's helper cannot
// enter another one.
func TestMadeInNetwork(t *testing.T) {
	root := os.Geteuid() == 0
	f, _ := serve32(t, func(s *setup) {
		if s.wrapper = []string{"/usr/bin/unshare", "--net"}; !root {
			s.wrapper = append(s.wrapper, "--user")
		}
	})
	native, errno := f.call(nr32Socket, unix.AF_INET, unix.SOCK_STREAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	made, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_STREAM, 0)
	if !root {
		if errno != unix.EACCES {
			t.Errorf("a socket in another network: %v", errno)
		}
		return
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	outside, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	cookie := func(fd int) uint64 { return binary.NativeEndian.Uint64(f.option(fd, unix.SO_NETNS_COOKIE, 8)) }
	if errno != 0 || cookie(made) != cookie(native) || cookie(made) == outside {
		t.Errorf("%v: made in %d, and the caller is in %d", errno, cookie(made), cookie(native))
	}
}

// Root of a user namespace has capabilities there, and none here.
func TestMadeInUserNamespace(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	f, _ := serve32(t, func(s *setup) { s.wrapper = []string{"/usr/bin/unshare", "--user", "--map-root-user"} })
	if fd, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); errno != unix.EPERM {
		t.Errorf("a raw socket: %d, %v", fd, errno)
	}
	if fd, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_STREAM, 0); errno != 0 {
		t.Errorf("an ordinary socket: %d, %v", fd, errno)
	}
}

func identityOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); key == "Uid" || key == "Gid" || key == "Groups" || key == "CapPrm" {
			found = append(found, strings.Join(strings.Fields(value), " "))
		}
	}
	return strings.Join(found, "; ")
}

func threads(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
