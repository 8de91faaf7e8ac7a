package probe

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// scanned is the number of descriptors to try where /proc does not list them.
const scanned = 1 << 16

// inherited looks for sockets of AF_ALG, the wanted domain, among this
// process's own descriptors.
func inherited(wanted int) Outcome {
	o := Outcome{Filter: Uncertain, Control: "ok"}
	if err := canTellDomain(); err != nil {
		o.Verdict, o.Control = Undecided, err.Error()
		o.Detail = "the domain of a socket cannot be read here, so nothing can be said of the descriptors"
		return o
	}
	sockets := 0
	for fd := range descriptors() {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			continue
		}
		sockets++
		if domain == wanted {
			o.Verdict = Open
			o.Detail = fmt.Sprintf("descriptor %d is an AF_ALG socket", fd)
			return o
		}
	}
	o.Verdict = Closed
	o.Detail = fmt.Sprintf("no AF_ALG socket was passed in (sockets seen: %d)", sockets)
	return o
}

// canTellDomain is the positive control.
func canTellDomain() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nameErrno(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	domain, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nameErrno(err)
	}
	if domain != unix.AF_UNIX {
		return fmt.Errorf("domain %d", domain)
	}
	return nil
}

func nameErrno(err error) error {
	if e, ok := err.(unix.Errno); ok {
		return fmt.Errorf("%s", errnoName(e))
	}
	return err
}

// descriptors yields the numbers of open descriptors, or those that may be open
// if /proc does not list them.
func descriptors() func(yield func(int) bool) {
	entries, err := os.ReadDir("/proc/self/fd")
	return func(yield func(int) bool) {
		if err != nil {
			for fd := range scanned {
				if !yield(fd) {
					return
				}
			}
			return
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil && !yield(fd) {
				return
			}
		}
	}
}
