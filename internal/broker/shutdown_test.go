package broker_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A socket of AF_ALG refuses shutdown and goes on. A placeholder accepts it,
// and has to go on as well; the session still ends when it is closed.
func TestShutdown(t *testing.T) {
	for name, how := range map[string][]uint64{
		"reading": {unix.SHUT_RD}, "writing": {unix.SHUT_WR}, "both": {unix.SHUT_RDWR},
		"one after the other": {unix.SHUT_RD, unix.SHUT_WR}, "again": {unix.SHUT_RDWR, unix.SHUT_RDWR},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t)
			fresh, bound := f.placeholder(), f.bound()
			for _, fd := range []int{fresh, bound} {
				for _, h := range how {
					if _, errno := f.call(unix.SYS_SHUTDOWN, uint64(fd), h); errno != 0 {
						t.Errorf("shutdown: %v", errno)
					}
				}
			}
			f.takeReported() // all events of the placeholders have been handled
			if errno := f.bind(fresh, "hash", "sha256"); errno != 0 {
				t.Errorf("bind: %v", errno)
			}
			f.checkOperation(&f.proc, fresh)
			f.checkOperation(&f.proc, bound)
			f.checkSessions(2)
			other := f.spawn(bound)
			f.close(bound)
			other.close(bound)
			f.checkOperation(other, fdPassed)
			f.close(fresh)
			other.close(fresh)
			f.checkSessions(1)
			other.close(fdPassed)
			f.checkSessions(0)
		})
	}
}

// The message in a placeholder shows that it is open. A process may take the
// message out: then a shutdown looks like a close, and ends its own session.
func TestEmptiedPlaceholder(t *testing.T) {
	f := serve(t)
	fd := f.placeholder()
	if n, errno := f.call(unix.SYS_RECVFROM, uint64(fd), f.room, 10, unix.MSG_DONTWAIT, 0, 0); n != 0 || errno != 0 {
		t.Errorf("receive: %d bytes, %v", n, errno)
	}
	if errno := f.bind(fd, "hash", "sha256"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	f.checkOperation(&f.proc, fd)
	f.close(fd)
	f.checkSessions(0)
	fd = f.bound()
	f.call(unix.SYS_RECVFROM, uint64(fd), f.room, 10, unix.MSG_DONTWAIT, 0, 0)
	f.call(unix.SYS_SHUTDOWN, uint64(fd), unix.SHUT_RDWR)
	f.checkSessions(0)
	if _, errno := f.accept(fd, 0); errno != unix.EINVAL {
		t.Errorf("accept: %v", errno)
	}
}
