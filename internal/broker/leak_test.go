package broker_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const manySessions = 5000

// Descriptors, goroutines and sessions stay few while thousands of sessions
// come and go. The fixture counts those left at the end.
func TestManySessions(t *testing.T) {
	f := serve(t, func(s *setup) { s.sessions = 64 })
	f.seen.hush()
	f.bound()
	const room = 300 // pairs that wait, and sessions whose end is not yet seen
	descriptors, goroutines := openFDs(t), runtime.NumGoroutine()
	at := f.put(address("hash", "sha256"))
	for i := range manySessions {
		fd, errno := f.socket(unix.SOCK_CLOEXEC)
		if errno == unix.ENFILE { // closed, but not yet seen as closed
			f.checkSessions(1)
			fd, errno = f.socket(0)
		}
		if errno != 0 {
			t.Fatalf("session %d: socket: %v", i, errno)
		}
		if _, errno := f.call(unix.SYS_BIND, uint64(fd), at, 88); errno != 0 {
			t.Fatalf("session %d: bind: %v", i, errno)
		}
		operation, errno := f.accept(fd, 0)
		if errno != 0 {
			t.Fatalf("session %d: accept: %v", i, errno)
		}
		f.close(fd)
		f.close(operation)
		if i%500 == 0 {
			if d, g := openFDs(t), runtime.NumGoroutine(); d > descriptors+room || g > goroutines+4 {
				t.Fatalf("session %d: %d descriptors and %d goroutines, then %d and %d", i, descriptors, goroutines, d, g)
			}
		}
	}
	f.checkSessions(1)
}

// Many sessions are opened at once, until there is no more room.
func TestFull(t *testing.T) {
	f := serve(t, func(s *setup) { s.sessions = 200 })
	for range 5 {
		var fds []int
		for {
			fd, errno := f.socket(0)
			if errno == unix.ENFILE {
				break
			}
			if errno != 0 {
				t.Fatal(errno)
			}
			fds = append(fds, fd)
		}
		if len(fds) != 200 {
			t.Errorf("%d sessions at once", len(fds))
		}
		for _, fd := range fds {
			f.close(fd)
		}
		f.checkSessions(0)
	}
}

// Workloads do not see one another.
func TestTwoWorkloads(t *testing.T) {
	a, b := serve(t), serve(t, func(s *setup) { s.second = true })
	fdA, fdB := a.bound(), b.bound()
	b.workload.SetPlan(nothing())
	a.checkOperation(&a.proc, fdA)
	if _, errno := b.accept(fdB, 0); errno != unix.EINVAL {
		t.Errorf("accept: %v", errno)
	}
	a.finish()
	a.ended = true
	b.checkSessions(1)
}
