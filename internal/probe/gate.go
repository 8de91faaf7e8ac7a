package probe

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A gate by a filter of our own: it answers TRACE for the call, and without a
// tracer the kernel then skips the call and returns ENOSYS. TRACE is above ALLOW
// and below ERRNO, TRAP and KILL: what the filters before it deny, they answer,
// and what they let through is not carried out. So any call can be asked about,
// whatever it would do.

// gated makes a call in a child of its own that has such a filter.
func (e entry) gated(call raw) answer {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(call.nr), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	// In the page, which does not move as stacks do.
	there := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&e.page[pageFilter])), len(program))
	copy(there, program)
	*(*unix.SockFprog)(unsafe.Pointer(&e.page[pageArgs])) = unix.SockFprog{Len: uint16(len(program)), Filter: &there[0]}
	return inChild(plainFork(),
		raw{direct, unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_NO_NEW_PRIVS, 1}},
		raw{direct, unix.SYS_SECCOMP, [6]uintptr{unix.SECCOMP_SET_MODE_FILTER, 0, e.address(pageArgs)}},
		call)
}

const pageFilter = pageArgs + 256
