package notify_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func pair(t *testing.T, kind int) (a, b int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.CloseAll(ends[:]) })
	return ends[0], ends[1]
}

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestSendAndReceive(t *testing.T) {
	for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		for _, count := range []int{0, 1, 2, notify.MaxFDs} {
			a, b := pair(t, kind)
			null := openNull(t)
			before := openFDs(t)
			if err := notify.SendFDs(a, []byte("message"), slices.Repeat([]int{null}, count)...); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, fds, err := notify.ReceiveFDs(b, buf, count)
			if string(buf[:n]) != "message" || len(fds) != count || err != nil {
				t.Fatalf("kind %d, %d descriptors: received %q, %v, %v", kind, count, buf[:n], fds, err)
			}
			for _, fd := range fds {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC || inode(t, fd) != inode(t, null) {
					t.Errorf("descriptor %d has the flags %d, %v", fd, flags, err)
				}
			}
			notify.CloseAll(fds)
			if after := openFDs(t); after != before {
				t.Errorf("kind %d, %d descriptors: %d descriptors open, then %d", kind, count, before, after)
			}
		}
	}
}

// Whatever is wrong with a message, none of its descriptors stays open.
func TestReceiveRefuses(t *testing.T) {
	for _, test := range []struct {
		name            string
		kind            int
		message         string
		count, room, at int // descriptors sent; room for bytes and descriptors
		want            string
	}{
		{"one descriptor too many", unix.SOCK_SEQPACKET, "m", 2, 10, 1, "more than 1 descriptors in a message"},
		{"a descriptor where none is wanted", unix.SOCK_SEQPACKET, "m", 1, 10, 0, "more than 0 descriptors in a message"},
		{"ten where one is wanted", unix.SOCK_STREAM, "m", 10, 10, 1, "more than 1 descriptors in a message"},
		{"as many as can be", unix.SOCK_SEQPACKET, "m", notify.MaxFDs, 10, 1, "more than 1 descriptors in a message"},
		{"too long", unix.SOCK_SEQPACKET, "elevenbytes", 0, 10, 1, "a message of more than 10 bytes"},
		{"too long, with a descriptor", unix.SOCK_SEQPACKET, "elevenbytes", 1, 10, 1, "a message of more than 10 bytes"},
		{"too long, with too many", unix.SOCK_DGRAM, "elevenbytes", 3, 10, 1, "more than 1 descriptors in a message"},
	} {
		a, b := pair(t, test.kind)
		null := openNull(t)
		before := openFDs(t)
		if err := notify.SendFDs(a, []byte(test.message), slices.Repeat([]int{null}, test.count)...); err != nil {
			t.Fatal(err)
		}
		n, fds, err := notify.ReceiveFDs(b, make([]byte, test.room), test.at)
		if n != 0 || fds != nil || fmt.Sprint(err) != test.want {
			t.Errorf("%s: %d, %v, %v; want %s", test.name, n, fds, err, test.want)
		}
		if after := openFDs(t); after != before {
			t.Errorf("%s: %d descriptors open, then %d", test.name, before, after)
		}
	}
}

// sendRaw sends what package unix would not: an empty message with descriptors.
func sendRaw(socket int, message []byte, fds ...int) error {
	var header unix.Msghdr
	if len(message) > 0 {
		var vector unix.Iovec
		vector.Base = &message[0]
		vector.SetLen(len(message))
		header.Iov = &vector
		header.SetIovlen(1)
	}
	if len(fds) > 0 {
		rights := unix.UnixRights(fds...)
		header.Control = &rights[0]
		header.SetControllen(len(rights))
	}
	if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(socket), uintptr(unsafe.Pointer(&header)), 0); errno != 0 {
		return errno
	}
	return nil
}

// An empty packet does not mean a closed peer, and its descriptors do not stay
// open.
func TestReceiveEmpty(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	null := openNull(t)
	before := openFDs(t)
	if err := sendRaw(a, nil, null); err != nil {
		t.Fatal(err)
	}
	n, fds, err := notify.ReceiveFDs(b, make([]byte, 10), 1)
	if n == 0 && err == nil && len(fds) > 0 {
		t.Errorf("%d descriptors came with what looks like a closed peer: nobody closes them", len(fds))
	}
	notify.CloseAll(fds)
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, then %d", before, after)
	}
}

func TestClosedPeer(t *testing.T) {
	for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
		ends, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(ends[1])
		if n, fds, err := notify.ReceiveFDs(ends[0], make([]byte, 10), 1); n != 0 || fds != nil || err != nil {
			t.Errorf("receive: %d, %v, %v", n, fds, err)
		}
		// Without a signal: SIGPIPE would end the test.
		if got, want := fmt.Sprint(notify.SendFDs(ends[0], []byte("m"))), "send 0 descriptors: broken pipe"; got != want {
			t.Errorf("send: %s, want %s", got, want)
		}
		unix.Close(ends[0])
	}
}

func TestSendRefuses(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	null := openNull(t)
	for want, err := range map[string]error{
		"send descriptors: an empty message":                 notify.SendFDs(a, nil, null),
		"send 1 descriptors: bad file descriptor":            notify.SendFDs(a, []byte("m"), 1<<20),
		"send 254 descriptors: invalid argument":             notify.SendFDs(a, []byte("m"), slices.Repeat([]int{null}, notify.MaxFDs+1)...),
		"send 2 descriptors: bad file descriptor":            notify.SendFDs(1<<20, []byte("m"), null, null),
		"send 0 descriptors: socket operation on non-socket": notify.SendFDs(null, []byte("m")),
	} {
		if fmt.Sprint(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := unix.SetNonblock(b, true); err != nil {
		t.Fatal(err)
	}
	if n, fds, err := notify.ReceiveFDs(b, make([]byte, 10), 1); n != 0 || fds != nil || err != unix.EAGAIN {
		t.Errorf("nothing was sent, and %d, %v, %v received", n, fds, err)
	}
}

func TestSetsockopt(t *testing.T) {
	a, _ := pair(t, unix.SOCK_SEQPACKET)
	value := []byte{0, 0, 1, 0}
	if err := notify.Setsockopt(a, unix.SOL_SOCKET, unix.SO_PRIORITY, []byte{3, 0, 0, 0}, 77); err != nil {
		t.Error(err) // the length is the buffer's
	}
	if got, err := unix.GetsockoptInt(a, unix.SOL_SOCKET, unix.SO_PRIORITY); err != nil || got != 3 && got != 3<<24 {
		t.Errorf("priority %d, %v", got, err)
	}
	for _, test := range []struct {
		name   string
		fd     int
		value  []byte
		length uint32
		want   error
	}{
		{"no buffer, but a length", a, nil, 4, unix.EFAULT},
		{"no buffer and no length", a, nil, 0, unix.EINVAL},
		{"a negative length", a, nil, 1<<32 - 1, unix.EINVAL},
		{"a short buffer", a, value[:2], 4, unix.EINVAL},
		{"no descriptor", 1 << 20, value, 4, unix.EBADF},
		{"no socket", openNull(t), value, 4, unix.ENOTSOCK},
	} {
		if err := notify.Setsockopt(test.fd, unix.SOL_SOCKET, unix.SO_PRIORITY, test.value, test.length); err != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestAccept(t *testing.T) {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	for _, err := range []error{unix.Bind(l, &unix.SockaddrUnix{}), unix.Listen(l, 10)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	address, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	if fd, err := notify.Accept(l, 0); fd != -1 || err != unix.EAGAIN {
		t.Errorf("nobody is there: %d, %v", fd, err)
	}
	if fd, err := notify.Accept(l, 1); fd != -1 || err != unix.EINVAL {
		t.Errorf("an unknown flag: %d, %v", fd, err)
	}
	for _, test := range []struct{ flags, fd, file int }{
		{0, 0, 0}, {unix.SOCK_CLOEXEC, unix.FD_CLOEXEC, 0}, {unix.SOCK_NONBLOCK, 0, unix.O_NONBLOCK},
	} {
		peer, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(peer, address); err != nil {
			t.Fatal(err)
		}
		fd, err := notify.Accept(l, test.flags)
		if err != nil {
			t.Fatal(err)
		}
		own, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		file, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if own != test.fd || file&unix.O_NONBLOCK != test.file {
			t.Errorf("flags %#x: descriptor flags %#x, file flags %#x", test.flags, own, file)
		}
		notify.CloseAll([]int{fd, peer})
	}
}

func FuzzReceiveFDs(f *testing.F) {
	f.Add([]byte("m"), 1, 1, 10)
	f.Add([]byte{}, 3, 0, 0)
	f.Fuzz(func(t *testing.T, message []byte, count, max, room int) {
		if count < 0 || count > notify.MaxFDs || max < 0 || max > notify.MaxFDs || room < 1 || room > 1<<16 || len(message) > 1<<16 {
			return
		}
		a, b := pair(t, unix.SOCK_SEQPACKET)
		null := openNull(t)
		before := openFDs(t)
		if sendRaw(a, message, slices.Repeat([]int{null}, count)...) != nil {
			return
		}
		buf := make([]byte, room)
		n, fds, err := notify.ReceiveFDs(b, buf, max)
		if len(fds) > 0 && n == 0 {
			t.Errorf("%d descriptors came with what looks like a closed peer", len(fds))
		}
		if err == nil && (count > max || len(message) > room || !bytes.Equal(buf[:n], message)) {
			t.Errorf("%d bytes with %d descriptors came as %q, %v", len(message), count, buf[:n], fds)
		}
		notify.CloseAll(fds)
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors open, then %d", before, after)
		}
	})
}
