package afalg

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The table must agree with the one that x/sys generates from the headers
// (tests run where the generic numbers hold), except for its preferred names
// among several of one number.
func TestErrnoTable(t *testing.T) {
	preferred := map[uint32]string{95: "EOPNOTSUPP", 117: "EUCLEAN"}
	for n := range uint32(134) {
		want, ok := preferred[n]
		if !ok {
			want = unix.ErrnoName(syscall.Errno(n))
		}
		if got := ErrnoName(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	for _, n := range []uint32{134, 1000, 1<<32 - 1} {
		if got := ErrnoName(n); got != "" {
			t.Errorf("%d: got %q", n, got)
		}
	}
}

func TestErrnoByName(t *testing.T) {
	for _, name := range Errnos() {
		n, ok := ErrnoByName(name)
		if !ok || n == 0 {
			t.Errorf("%s: %d, %v", name, n, ok)
		}
		if _, alias := errnoAliases[name]; !alias && ErrnoName(n) != name {
			t.Errorf("%s: %d is %s", name, n, ErrnoName(n))
		}
	}
	for name, want := range map[string]syscall.Errno{
		"EAFNOSUPPORT": unix.EAFNOSUPPORT, "ENOENT": unix.ENOENT, "EWOULDBLOCK": unix.EWOULDBLOCK,
		"EDEADLOCK": unix.EDEADLOCK, "ENOTSUP": unix.ENOTSUP,
	} {
		if n, ok := ErrnoByName(name); !ok || n != uint32(want) {
			t.Errorf("%s: got %d, %v; want %d", name, n, ok, want)
		}
	}
	for _, name := range []string{"", "-", "0", "97", "eperm", "EPERM "} {
		if n, ok := ErrnoByName(name); ok {
			t.Errorf("%q: got %d", name, n)
		}
	}
}
