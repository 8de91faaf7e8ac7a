package kerneltest

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring makes an io_uring of one entry. The error is the kernel's.
func Ring() (fd int, err error) {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1, os.NewSyscallError("io_uring_setup", errno)
	}
	return int(ring), nil
}

// NeedRing returns an io_uring, which is closed with the test. It skips the test,
// or the part of one, where the kernel makes none: without the feature, with
// kernel.io_uring_disabled, or under a container's filter.
func NeedRing(t testing.TB) int {
	t.Helper()
	fd, err := Ring()
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		t.Skipf("this kernel makes no ring here: %v (see kernel.io_uring_disabled)", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
