package probe

import "golang.org/x/sys/unix"

// lowMemory maps below 2 GiB, where 32-bit pointers reach.
const lowMemory = unix.MAP_32BIT

// reach has the ways into each ABI that this build can enter. x32 differs from
// x86-64 only by a bit of the number.
var reach = map[string]invoke{"x86-64": direct, "i386": int80, "x32": direct}

// interrupt80 makes an i386 system call with the low halves of its arguments,
// and returns eax. It does not return where the kernel has no IA32 emulation.
//
//go:noescape
func interrupt80(nr, a1, a2, a3, a4, a5, a6 uint32) int32

//go:nosplit
func int80(nr uintptr, a [6]uintptr) (uintptr, unix.Errno) {
	r := interrupt80(uint32(nr), uint32(a[0]), uint32(a[1]), uint32(a[2]), uint32(a[3]), uint32(a[4]), uint32(a[5]))
	if r < 0 && r > -4096 {
		return 0, unix.Errno(-r)
	}
	return uintptr(uint32(r)), 0
}
