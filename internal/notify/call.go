package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Package unix cannot make the two calls below: it has no null pointer with a
// length, and no accept without an address.

// Setsockopt sets an option from a buffer. An empty one is a null pointer with
// the given length; some options pass a number that way.
func Setsockopt(fd, level, name int, value []byte, length uint32) error {
	var p unsafe.Pointer
	if len(value) > 0 {
		p, length = unsafe.Pointer(&value[0]), uint32(len(value))
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(p), uintptr(length), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Accept accepts without asking for the address of the peer.
func Accept(fd, flags int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, uintptr(flags), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
