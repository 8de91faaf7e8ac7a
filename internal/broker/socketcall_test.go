package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/child"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// program32 is a 32-bit process that takes the child's commands.
const program32 = `package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func init() { runtime.LockOSThread() }

func main() {
	const size = 64 * 4096
	room, err := syscall.Mmap(-1, 0, size+4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err == nil {
		err = syscall.Mprotect(room[size:], syscall.PROT_NONE)
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("ready", os.Getpid(), uintptr(unsafe.Pointer(&room[0])))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var n [7]uintptr
		for i, w := range strings.Fields(in.Text())[1:] {
			v, err := strconv.ParseUint(w, 10, 64)
			if err != nil {
				panic(err)
			}
			n[i] = uintptr(v)
		}
		r, _, errno := syscall.Syscall6(n[0], n[1], n[2], n[3], n[4], n[5], n[6])
		fmt.Println(int(r), int(errno))
	}
}
`

// Numbers of i386.
const (
	nr32Close      = 6
	nr32Socketcall = 102
	nr32Setgroups  = 206
	nr32Setresuid  = 208
	nr32Setresgid  = 210
	nr32Fcntl      = 221
	nr32Socket     = 359
	nr32Getsockopt = 365
)

// Calls of socketcall (linux/net.h).
const (
	callSocket     = 1
	callBind       = 2
	callConnect    = 3
	callListen     = 4
	callAccept     = 5
	callSocketpair = 8
	callSetsockopt = 14
	callAccept4    = 18
)

// socketcall makes a call whose arguments are in memory.
func (p *proc) socketcall(call uint64, args ...uint32) (int, unix.Errno) {
	p.Helper()
	b, err := binary.Append(nil, binary.NativeEndian, args)
	if err != nil {
		p.Fatal(err)
	}
	return p.call(nr32Socketcall, call, p.put(b))
}

// at writes data out of the way of the arguments.
func (p *proc) at(data []byte) uint32 {
	p.Helper()
	p.putAt(p.room, data)
	return uint32(p.room)
}

// serve32 serves a 32-bit process whose socketcall the broker answers.
func serve32(t *testing.T, change ...func(*setup)) (*fixture, *maker) {
	t.Helper()
	kerneltest.NeedI386(t)
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program32")
	if err := os.WriteFile(source, []byte(program32), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkLeaks(t)
	m := startMaker(t)
	f := serve(t, append([]func(*setup){func(s *setup) {
		s.filter, s.sockets, s.second = runFilter[harden.SocketcallBroker](), m.sockets, true
	}}, change...)...)
	f.exec(append(f.wrapper, binary)...)
	return f, m
}

// maker is the helper that makes sockets.
type maker struct {
	*exec.Cmd
	sockets *broker.Sockets
}

func startMaker(t *testing.T) *maker {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "theirs")
	defer theirs.Close()
	cmd := child.Command("sockets")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(ends[0])
		cmd.Wait() // it ends with the socket
	})
	return &maker{cmd, broker.NewSockets(ends[0])}
}

func TestSocketcallFamilies(t *testing.T) {
	closed := testPlan()
	closed.Families = []policy.Family{{Name: "AF_INET6", Number: unix.AF_INET6}}
	f, _ := serve32(t)
	for _, test := range []struct {
		family, kind, protocol uint32
		want, closed           unix.Errno
	}{
		{unix.AF_UNIX, unix.SOCK_STREAM, 0, 0, 0},
		{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 0, 0, 0},
		{unix.AF_INET, unix.SOCK_STREAM, 0, 0, 0},
		{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, unix.IPPROTO_UDP, 0, 0},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 0, unix.EAFNOSUPPORT},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, 0, 0},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CRYPTO, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_PACKET, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_KEY, unix.SOCK_RAW, 2, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_UNSPEC, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{1000, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{1<<32 - 1, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT, unix.EAFNOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, 77, unix.EPROTONOSUPPORT, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_SEQPACKET, 0, unix.ESOCKTNOSUPPORT, unix.ESOCKTNOSUPPORT},
		{unix.AF_INET, 14, 0, unix.EINVAL, unix.EINVAL},
	} {
		for _, p := range []*plan.Plan{testPlan(), closed, nothing(), nil} {
			want := test.want
			if p == closed {
				want = test.closed
			}
			if p == nil && want == 0 { // nobody says what is open
				want = unix.EAFNOSUPPORT
			}
			f.workload.SetPlan(p)
			fd, errno := f.socketcall(callSocket, test.family, test.kind, test.protocol)
			if errno != want && (p != nil || errno != unix.EAFNOSUPPORT) {
				t.Errorf("family %d, type %#x, protocol %d: %v, want %v", test.family, test.kind, test.protocol, errno, want)
			}
			if errno == 0 {
				f.checkFlags32(fd, test.kind)
			}
		}
	}
	if records, _, failed := f.take(); records != nil || failed != nil {
		t.Errorf("records %+v, failed %v", records, failed)
	}
}

func (f *fixture) checkFlags32(fd int, kind uint32) {
	f.Helper()
	own, _ := f.call(nr32Fcntl, uint64(fd), unix.F_GETFD)
	file, _ := f.call(nr32Fcntl, uint64(fd), unix.F_GETFL)
	if own&unix.FD_CLOEXEC != 0 != (kind&unix.SOCK_CLOEXEC != 0) || file&unix.O_NONBLOCK != 0 != (kind&unix.SOCK_NONBLOCK != 0) {
		f.Errorf("type %#x: descriptor flags %#x, file flags %#x", kind, own, file)
	}
	f.call(nr32Close, uint64(fd))
}

func TestSocketcallSession(t *testing.T) {
	var key shared[string]
	f, _ := serve32(t, func(s *setup) {
		s.crypto.onOption = func(_ int, value []byte, _ uint32) error { key.set(string(value)); return nil }
	})
	for _, open := range []func() (int, unix.Errno){
		func() (int, unix.Errno) { return f.socketcall(callSocket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
		func() (int, unix.Errno) { return f.call(nr32Socket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
	} {
		fd, errno := open()
		if errno != 0 {
			t.Fatal(errno)
		}
		if _, errno := f.socketcall(callBind, uint32(fd), f.at(address("hash", "md5")), 88); errno != unix.ENOENT {
			t.Errorf("bind of what is denied: %v", errno)
		}
		for _, length := range []uint32{0, 16, 87, 89, 128, 1<<32 - 1} {
			if _, errno := f.socketcall(callBind, uint32(fd), f.at(address("hash", "sha256")), length); errno != unix.EINVAL {
				t.Errorf("bind of %d bytes: %v", length, errno)
			}
		}
		if _, errno := f.socketcall(callBind, uint32(fd), f.at(address("hash", "sha256")), 88); errno != 0 {
			t.Errorf("bind: %v", errno)
		}
		if _, errno := f.socketcall(callSetsockopt, uint32(fd), unix.SOL_ALG, unix.ALG_SET_KEY, f.at([]byte("key")), 3); errno != 0 || key.get() != "key" {
			t.Errorf("setsockopt: %v, %q", errno, key.get())
		}
		if _, errno := f.socketcall(callSetsockopt, uint32(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, f.at([]byte{1, 0, 0, 0}), 4); errno != unix.ENOPROTOOPT {
			t.Errorf("setsockopt of another level: %v", errno)
		}
		for _, args := range [][]uint32{{callAccept, uint32(fd), 0, 0}, {callAccept4, uint32(fd), 0, 0, unix.SOCK_CLOEXEC}} {
			operation, errno := f.socketcall(uint64(args[0]), args[1:]...)
			if got, want := f.socketOf(operation), fmt.Sprintf("socket:[%d]", f.crypto.last()); errno != 0 || got != want {
				t.Errorf("call %d: %s, %v; want %s", args[0], got, errno, want)
			}
		}
		if _, errno := f.socketcall(callAccept, uint32(fd), uint32(f.room), uint32(f.room)); errno != unix.EINVAL {
			t.Errorf("accept with an address: %v", errno)
		}
		if _, errno := f.call(nr32Close, uint64(fd)); errno != 0 {
			t.Errorf("close: %v", errno)
		}
		f.checkSessions(0)
	}
	f.workload.SetPlan(nothing())
	if _, errno := f.socketcall(callSocket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0); errno != unix.EAFNOSUPPORT {
		t.Errorf("socket of who may not: %v", errno)
	}
}

func TestSocketcallPair(t *testing.T) {
	f, _ := serve32(t)
	out := uint32(f.room + 512)
	if _, errno := f.socketcall(callSocketpair, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0, out); errno != 0 {
		t.Fatal(errno)
	}
	numbers := f.peek(uint64(out), 8)
	a, b := binary.NativeEndian.Uint32(numbers), binary.NativeEndian.Uint32(numbers[4:])
	if a == b || f.socketOf(int(a)) == f.socketOf(int(b)) {
		t.Errorf("descriptors %d and %d", a, b)
	}
	for _, test := range []struct {
		family, kind, out uint32
		want              unix.Errno
	}{
		{unix.AF_ALG, unix.SOCK_SEQPACKET, out, unix.EAFNOSUPPORT},
		{unix.AF_VSOCK, unix.SOCK_STREAM, out, unix.EAFNOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, out, unix.EOPNOTSUPP},
		{unix.AF_UNIX, 77, out, unix.EINVAL},
		{unix.AF_UNIX, unix.SOCK_STREAM, uint32(f.room + roomSize), unix.EFAULT},
		{unix.AF_UNIX, unix.SOCK_STREAM, uint32(f.room + roomSize - 4), unix.EFAULT},
	} {
		if _, errno := f.socketcall(callSocketpair, test.family, test.kind, 0, test.out); errno != test.want {
			t.Errorf("pair of family %d, type %d at %#x: %v, want %v", test.family, test.kind, test.out, errno, test.want)
		}
	}
}

// Calls that have nothing to do with AF_ALG go on, and wild pointers are the
// caller's fault.
func TestSocketcallGoesOn(t *testing.T) {
	f, _ := serve32(t)
	fd, errno := f.socketcall(callSocket, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, call := range []uint64{callSocket, callBind, callAccept, callSocketpair, callSetsockopt, callAccept4} {
		for _, at := range []uint64{0, f.room + roomSize, f.room + roomSize - 4} {
			if _, errno := f.call(nr32Socketcall, call, at); errno != unix.EFAULT {
				t.Errorf("socketcall %d with arguments at %#x: %v", call, at, errno)
			}
		}
	}
	if _, _, failed := f.take(); failed != nil {
		t.Errorf("failed %v", failed)
	}
	name := append([]byte{unix.AF_UNIX, 0, 0}, bytes.Repeat([]byte{byte('a' + f.pid%26)}, 85)...)
	copy(name[3:], fmt.Sprint(f.pid))
	if _, errno := f.socketcall(callBind, uint32(fd), f.at(name), 88); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	if _, errno := f.socketcall(callListen, uint32(fd), 5); errno != 0 {
		t.Errorf("listen: %v", errno)
	}
	peer, _ := f.socketcall(callSocket, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if _, errno := f.socketcall(callConnect, uint32(peer), f.at(name), 88); errno != 0 {
		t.Errorf("connect: %v", errno)
	}
	if _, errno := f.socketcall(callAccept, uint32(fd), 0, 0); errno != 0 {
		t.Errorf("accept: %v", errno)
	}
	for _, call := range []uint64{0, 21, 1<<32 - 1} {
		if _, errno := f.call(nr32Socketcall, call, f.room); errno != unix.EINVAL {
			t.Errorf("socketcall %d: %v", call, errno)
		}
	}
}

// A dead or missing helper is no way in.
func TestSocketcallWithoutMaker(t *testing.T) {
	for _, dead := range []bool{true, false} {
		t.Run(fmt.Sprint("dead ", dead), func(t *testing.T) {
			f, m := serve32(t, func(s *setup) {
				if !dead {
					s.sockets = nil
				}
			})
			m.Process.Kill()
			m.Wait()
			f.checkNoMaker()
		})
	}
}

func (f *fixture) checkNoMaker() {
	f.Helper()
	for range 2 {
		if fd, errno := f.socketcall(callSocket, unix.AF_INET, unix.SOCK_STREAM, 0); errno != unix.EACCES {
			f.Errorf("socket: %d, %v; want %v", fd, errno, unix.EACCES)
		}
		if _, errno := f.socketcall(callSocketpair, unix.AF_UNIX, unix.SOCK_STREAM, 0, uint32(f.room)); errno != unix.EACCES {
			f.Errorf("socketpair: %v, want %v", errno, unix.EACCES)
		}
	}
	if _, _, failed := f.take(); len(failed) != 4 || !strings.HasPrefix(failed[0], "socketcall: ") {
		f.Errorf("failed %q", failed)
	}
	if _, errno := f.socketcall(callSocket, unix.AF_ALG, unix.SOCK_SEQPACKET, 0); errno != 0 {
		f.Errorf("a placeholder needs no helper, and: %v", errno)
	}
}
