package probe

import (
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// invoke makes a system call through one ABI.
type invoke func(nr uintptr, args [6]uintptr) (uintptr, unix.Errno)

// direct is the machine instruction that the Go runtime uses as well.
//
//go:nosplit
func direct(nr uintptr, a [6]uintptr) (uintptr, unix.Errno) {
	r, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return r, errno
}

// entry is an ABI, the way into it, and a page that its pointers can reach.
type entry struct {
	afalg.ABI
	call invoke
	page []byte
}

// The page holds what the kernel writes first, then arguments behind a pointer.
const pageArgs = 1024

func lowPage() ([]byte, error) {
	return unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|lowMemory)
}

func (e entry) syscall(nr uint32, args ...uintptr) (uintptr, unix.Errno) {
	var a [6]uintptr
	copy(a[:], args)
	return e.call(uintptr(e.Bit|nr), a)
}

func (e entry) address(offset int) uintptr { return uintptr(unsafe.Pointer(&e.page[offset])) }

// words writes C longs of the ABI at an offset of the page.
func (e entry) words(offset int, words ...uint32) {
	for _, w := range words {
		if e.LongSize() == 8 {
			binary.NativeEndian.PutUint64(e.page[offset:], uint64(w))
		} else {
			binary.NativeEndian.PutUint32(e.page[offset:], w)
		}
		offset += e.LongSize()
	}
}

// mayRun reports whether the machine may run programs of an ABI that this build
// cannot enter; in doubt it may. arm64 refuses PER_LINUX32 where no processor
// runs AArch32.
func mayRun(abi afalg.ABI) bool {
	if runtime.GOARCH != "arm64" || abi.Name != "arm" {
		return true
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const perLinux32 = 8
	old, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, perLinux32, 0, 0)
	if errno == 0 {
		unix.RawSyscall(unix.SYS_PERSONALITY, old, 0, 0)
	}
	return errno != unix.EINVAL
}
