package notify

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install loads a filter for the calling thread and the programs that it
// executes, and returns the descriptor of its listener. The caller must be
// locked to its thread, and have no_new_privs or CAP_SYS_ADMIN.
//
// A signal to a trapped thread interrupts its call, and the supervisor's work
// is lost. From Linux 5.19 on, only fatal signals do so, once the call was
// received.
func Install(program []unix.SockFilter) (int, error) {
	if len(program) == 0 || len(program) > maxProgram {
		return -1, fmt.Errorf("load a filter of %d instructions: a program has 1 to %d", len(program), maxProgram)
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const listen = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	fd, err := load(listen|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &fprog)
	if err == unix.EINVAL { // before 5.19
		fd, err = load(listen, &fprog)
	}
	switch err {
	case nil:
		return fd, nil
	case unix.EBUSY:
		return -1, fmt.Errorf("load the filter: this process is under a filter with a listener already, and a process has one at most: %w", err)
	}
	return -1, fmt.Errorf("load the filter: %w", err)
}

// maxProgram is BPF_MAXINSNS.
const maxProgram = 4096

func load(flags uintptr, fprog *unix.SockFprog) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(fprog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
