package broker_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const (
	seqpacket = unix.SOCK_SEQPACKET
	high      = 1 << 32 // bits above an int mean nothing
)

// The order is the kernel's: __sys_socket, __sock_create, alg_create. A caller
// without any algorithm gets one errno, as from a filter.
func TestSocketErrnos(t *testing.T) {
	f := serve(t)
	refused := nothing()
	refused.SocketErrno = plan.Errno{Name: "EPROTO", Number: uint32(unix.EPROTO)}
	for _, test := range []struct {
		family, kind, protocol uint64
		want                   unix.Errno
	}{
		{unix.AF_ALG, seqpacket, 0, 0},
		{unix.AF_ALG | high, seqpacket | high, high, 0},
		{unix.AF_ALG, seqpacket, 1, unix.EPROTONOSUPPORT},
		{unix.AF_ALG, unix.SOCK_STREAM, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_ALG, unix.SOCK_DGRAM, 7, unix.ESOCKTNOSUPPORT},
		{unix.AF_ALG, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_ALG, 0, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_ALG, 10, 0, unix.ESOCKTNOSUPPORT},
		{unix.AF_ALG, 11, 0, unix.EINVAL},
		{unix.AF_ALG, 15, 1, unix.EINVAL},
		{unix.AF_ALG, seqpacket | 0x10, 0, unix.EINVAL},
		{unix.AF_ALG, seqpacket | unix.SOCK_CLOEXEC | 1<<31, 0, unix.EINVAL},
		{unix.AF_ALG, 1<<32 - 1, 0, unix.EINVAL},
	} {
		f.workload.SetPlan(testPlan())
		fd, errno := f.call(unix.SYS_SOCKET, test.family, test.kind, test.protocol)
		if errno != test.want {
			t.Errorf("socket(%#x, %#x, %#x): %v, want %v", test.family, test.kind, test.protocol, errno, test.want)
		}
		if errno == 0 {
			f.close(fd)
		}
		f.workload.SetPlan(refused)
		if _, errno := f.call(unix.SYS_SOCKET, test.family, test.kind, test.protocol); errno != unix.EPROTO {
			t.Errorf("socket(%#x, %#x, %#x) of who may not: %v", test.family, test.kind, test.protocol, errno)
		}
	}
	f.checkSessions(0)
}

func TestNoPlan(t *testing.T) {
	f := serve(t)
	fd := f.bound()
	f.workload.SetPlan(nil)
	_, socket := f.socket(0)
	bind := f.bind(fd, "hash", "sha256")
	_, accept := f.accept(fd, 0)
	if socket != unix.EAFNOSUPPORT || bind != unix.ENOENT || accept != unix.EINVAL {
		t.Errorf("without a plan: socket %v, bind %v, accept %v", socket, bind, accept)
	}
}

// The kernel's errno reaches the caller; an error that is no errno becomes EIO.
func TestSocketOfTheKernel(t *testing.T) {
	var say shared[error]
	f := serve(t, func(s *setup) { s.crypto.onSocket = say.get })
	for err, want := range map[error]unix.Errno{
		unix.EAFNOSUPPORT: unix.EAFNOSUPPORT, unix.EMFILE: unix.EMFILE, unix.ENOMEM: unix.ENOMEM,
		fmt.Errorf("wrapped: %w", unix.EPERM): unix.EPERM, errors.New("no errno"): unix.EIO,
	} {
		say.set(err)
		if _, errno := f.socket(0); errno != want {
			t.Errorf("%v: %v, want %v", err, errno, want)
		}
		records, _, _ := f.take()
		if len(records) != 1 || records[0].Allowed || records[0].Errno != uint32(want) || records[0].Reason != "the kernel gave no socket: "+err.Error() {
			t.Errorf("%v: recorded %+v", err, records)
		}
		f.checkSessions(0)
	}
	say.set(nil)
	f.close(f.placeholder())
}

func TestBindErrnos(t *testing.T) {
	refused := testPlan()
	refused.BindErrno = plan.Errno{Name: "EXDEV", Number: uint32(unix.EXDEV)}
	var reached shared[bool]
	f := serve(t, func(s *setup) {
		s.plan = refused
		s.crypto.onBind = func(*unix.SockaddrALG) error { reached.set(true); return nil }
	})
	fd := uint64(f.placeholder())
	good := address("hash", "sha256")
	end := f.room + roomSize
	changed := func(change func(b []byte)) uint64 {
		b := address("hash", "sha256")
		change(b)
		// Each has a place of its own: all are written before the first call.
		end -= 88
		f.putAt(end, b)
		return end
	}
	for _, test := range []struct {
		name     string
		fd, at   uint64
		want     unix.Errno
		recorded string // the algorithm
	}{
		{"no memory", fd, 0, unix.EFAULT, ""},
		{"no memory there", fd, f.room + roomSize, unix.EFAULT, ""},
		{"half of it in memory", fd, f.room + roomSize - 44, unix.EFAULT, ""},
		{"no address of a user", fd, 1 << 63, unix.EFAULT, ""},
		{"another family", fd, changed(func(b []byte) { b[0] = unix.AF_INET }), 0, "hash:sha256"},
		{"no family", fd, changed(func(b []byte) { b[0] = 0 }), 0, "hash:sha256"},
		{"a type without an end", fd, changed(func(b []byte) { copy(b[2:16], "hashhashhashhash") }), unix.EXDEV, "hash" + ":sha256"},
		{"no type", fd, changed(func(b []byte) { clear(b[2:16]) }), unix.EXDEV, ":sha256"},
		{"no name", fd, changed(func(b []byte) { clear(b[24:]) }), unix.EXDEV, "hash:"},
		{"a longer name", fd, changed(func(b []byte) { b[30] = 'x' }), unix.EXDEV, "hash:sha256x"},
		{"a name without an end", fd, changed(func(b []byte) {
			for i := range b[24:] {
				b[24+i] = 'a'
			}
		}), unix.EXDEV, ""},
		{"something behind the end", fd, changed(func(b []byte) { copy(b[31:], "evil") }), 0, "hash:sha256"},
		{"the driver's name", fd, changed(func(b []byte) { copy(b[24:], "sha256-generic") }), unix.EXDEV, "hash:sha256-generic"},
		{"within a template", fd, changed(func(b []byte) { copy(b[24:], "hmac(sha256)") }), unix.EXDEV, "hash:hmac(sha256)"},
		{"the algorithm of another type", fd, changed(func(b []byte) { copy(b[2:16], "skcipher") }), unix.EXDEV, "skcipher:sha256"},
		{"any algorithm", fd, changed(func(b []byte) { copy(b[24:], "*\x00\x00\x00\x00\x00") }), unix.EXDEV, "hash:*"},
		{"high bits", fd | high, changed(func([]byte) {}), 0, "hash:sha256"},
		{"no descriptor", 1000, f.room, unix.EBADF, ""},
		{"a negative descriptor", 1<<64 - 1, f.room, unix.EBADF, ""},
		{"no socket", 0, f.room, unix.ENOTSOCK, ""},
	} {
		reached.set(false)
		f.take()
		_, errno := f.call(unix.SYS_BIND, test.fd, test.at, 88)
		if errno != test.want || reached.get() != (test.want == 0) {
			t.Errorf("%s: %v, want %v; the kernel was asked: %v", test.name, errno, test.want, reached.get())
		}
		records, _, failed := f.take()
		if test.recorded != "" && (len(records) != 1 || len(records) == 1 && test.name != "a type without an end" && records[0].Algorithm != test.recorded || records[0].Allowed != (test.want == 0)) {
			t.Errorf("%s: recorded %+v", test.name, records)
		}
		if failed != nil {
			t.Errorf("%s: failed %v", test.name, failed)
		}
	}
	f.putAt(f.room, good)
	f.otherLengths(fd)
}

// Addresses of another length are left to the placeholder, which accepts none
// of the family.
func (f *fixture) otherLengths(fd uint64) {
	f.Helper()
	f.takeReported()
	for _, length := range []uint64{0, 1, 2, 24, 25, 87, 89, 110, 128, 129, 1<<32 - 1} {
		if _, errno := f.call(unix.SYS_BIND, fd, f.room, length); errno != unix.EINVAL {
			f.Errorf("an address of %d bytes: %v", length, errno)
		}
	}
	if _, answered, _ := f.takeReported(); answered != nil {
		f.Errorf("answered %v", answered)
	}
}

func TestBindOfTheKernel(t *testing.T) {
	var say shared[error]
	f := serve(t, func(s *setup) { s.crypto.onBind = func(*unix.SockaddrALG) error { return say.get() } })
	fd := f.placeholder()
	for err, want := range map[error]unix.Errno{
		unix.ENOENT: unix.ENOENT, unix.EBUSY: unix.EBUSY, errors.New("no errno"): unix.EIO, unix.Errno(0): unix.EPERM,
	} {
		say.set(err)
		if errno := f.bind(fd, "hash", "sha256"); errno != want {
			t.Errorf("%v: %v, want %v", err, errno, want)
		}
		records, _, _ := f.take()
		if len(records) != 1 || !records[0].Allowed || records[0].Rule != "two" {
			t.Errorf("%v: recorded %+v", err, records)
		}
		if _, errno := f.accept(fd, 0); errno != unix.EINVAL {
			t.Errorf("accept after a bind that failed: %v", errno)
		}
		f.take()
	}
	say.set(nil)
	if errno := f.bind(fd, "hash", "sha256"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	say.set(unix.EBUSY) // the earlier binding stays
	f.bind(fd, "skcipher", "cbc(aes)")
	f.checkOperation(&f.proc, fd)
}

func TestSetsockoptErrnos(t *testing.T) {
	var say shared[error]
	var asked shared[[]string]
	f := serve(t, func(s *setup) {
		s.crypto.onOption = func(name int, value []byte, length uint32) error {
			asked.set(append(asked.get(), fmt.Sprint(name, len(value), length)))
			return say.get()
		}
	})
	fd := uint64(f.bound())
	const key, tag = unix.ALG_SET_KEY, unix.ALG_SET_AEAD_AUTHSIZE
	for _, test := range []struct {
		name             string
		option, at, size uint64
		say              error
		want             unix.Errno
		asked            string
	}{
		{"a key", key, f.room, 32, nil, 0, "1 32 32"},
		{"an empty key", key, 0, 0, nil, 0, "1 0 0"},
		{"the longest key", key, f.room, 128 << 10, nil, 0, "1 131072 131072"},
		{"a key that is too long", key, f.room, 128<<10 + 1, nil, unix.ENOMEM, ""},
		{"a key of 2 GiB", key, f.room, 1<<31 - 1, nil, unix.ENOMEM, ""},
		{"a key that is not there", key, 0, 16, nil, unix.EFAULT, ""},
		{"a key that ends in nothing", key, f.room + roomSize - 8, 16, nil, unix.EFAULT, ""},
		{"a key that the kernel refuses", key, f.room, 5, unix.EINVAL, unix.EINVAL, "1 5 5"},
		{"while it is used", key, f.room, 16, unix.EBUSY, unix.EBUSY, "1 16 16"},
		{"no errno", key, f.room, 16, errors.New("?"), unix.EIO, "1 16 16"},
		{"high bits", key | high, f.room, 16 | high, nil, 0, "1 16 16"},
		{"the size of a tag", tag, 0, 12, nil, 0, "5 0 12"},
		{"its memory is not read", tag, 1 << 63, 12, nil, 0, "5 0 12"},
		{"ALG_SET_IV", unix.ALG_SET_IV, f.room, 16, nil, unix.ENOPROTOOPT, ""},
		{"ALG_SET_OP", unix.ALG_SET_OP, f.room, 4, nil, unix.ENOPROTOOPT, ""},
		{"ALG_SET_DRBG_ENTROPY", 6, f.room, 16, nil, unix.ENOPROTOOPT, ""},
		{"ALG_SET_KEY_BY_KEY_SERIAL", 7, f.room, 4, nil, unix.ENOPROTOOPT, ""},
		{"no option", 0, f.room, 4, nil, unix.ENOPROTOOPT, ""},
		{"a negative option", 1<<32 - 1, f.room, 4, nil, unix.ENOPROTOOPT, ""},
		{"a negative length", key, f.room, 1<<32 - 1, nil, unix.EINVAL, ""},
	} {
		asked.set(nil)
		say.set(test.say)
		_, errno := f.call(unix.SYS_SETSOCKOPT, fd, unix.SOL_ALG, test.option, test.at, test.size)
		if got := fmt.Sprint(asked.get()); errno != test.want || got != "["+test.asked+"]" {
			t.Errorf("%s: %v, want %v; the kernel was asked %s, want [%s]", test.name, errno, test.want, got, test.asked)
		}
		if records, _, failed := f.take(); test.name != "a key" && (records != nil || failed != nil) {
			t.Errorf("%s: %v, %v", test.name, records, failed)
		}
	}
	for bad, want := range map[uint64]unix.Errno{1000: unix.EBADF, 0: unix.ENOTSOCK} {
		if _, errno := f.call(unix.SYS_SETSOCKOPT, bad, unix.SOL_ALG, key, f.room, 16); errno != want {
			t.Errorf("descriptor %d: %v, want %v", bad, errno, want)
		}
	}
}

func TestAcceptErrnos(t *testing.T) {
	var say shared[error]
	f := serve(t, func(s *setup) { s.crypto.onAccept = say.get })
	unbound, bound := f.placeholder(), f.bound()
	for _, test := range []struct {
		name   string
		fd     int
		flags  uint64
		say    error
		denied bool
		want   unix.Errno
	}{
		{"a socket that is not bound", unbound, 0, nil, false, unix.EINVAL},
		{"unknown flags", bound, 1, nil, false, unix.EINVAL},
		{"unknown flags, high", bound, 1 << 31, nil, false, unix.EINVAL},
		{"flags above an int", bound, high, nil, false, 0},
		{"the kernel refuses", bound, 0, unix.ENOKEY, false, unix.ENOKEY},
		{"no errno", bound, 0, errors.New("?"), false, unix.EIO},
		{"a caller that may not", bound, 0, nil, true, unix.EINVAL},
		{"no descriptor", 1000, 0, nil, false, unix.EBADF},
		{"no socket", 0, 0, nil, false, unix.ENOTSOCK},
	} {
		say.set(test.say)
		f.take()
		f.workload.SetPlan(testPlan())
		if test.denied {
			f.workload.SetPlan(nothing())
		}
		if _, errno := f.accept(test.fd, test.flags); errno != test.want {
			t.Errorf("%s: %v, want %v", test.name, errno, test.want)
		}
		if records, _, _ := f.take(); test.denied != (len(records) == 1) {
			t.Errorf("%s: recorded %+v", test.name, records)
		}
	}
	// With an address the call is left to the placeholder.
	if _, errno := f.call(unix.SYS_ACCEPT4, uint64(bound), f.room, f.room+64, 0); errno != unix.EINVAL {
		t.Errorf("accept with an address: %v", errno)
	}
}

// Without room in the caller's table, everything made for it is closed again.
func TestNoRoom(t *testing.T) {
	f := serve(t)
	fd := f.bound()
	limit := make([]byte, 16)
	if _, errno := f.call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, f.put(limit), 0); errno != 0 {
		t.Fatal(errno)
	}
	_, socket := f.socket(0)
	_, accept := f.accept(fd, 0)
	if socket != unix.EMFILE || accept != unix.EMFILE {
		t.Errorf("socket %v, accept %v", socket, accept)
	}
	f.checkSessions(1)
}
