package broker_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

func TestNewRefuses(t *testing.T) {
	const want = "a broker needs subjects and pairs"
	for _, o := range []broker.Options{{}, {Subjects: &subject.Reader{}}, {Pairs: &broker.Pairs{}}} {
		if b, err := broker.New(o); b != nil || fmt.Sprint(err) != want {
			t.Errorf("%v, %v; want %s", b, err, want)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	f := serve(t)
	f.end()
	if err := f.wait(); err != nil {
		t.Errorf("the workload ended, and Serve: %v", err)
	}
	// Served again, with no process left, it ends at once.
	f.serve()
	if err := f.wait(); err != nil {
		t.Errorf("nobody was left, and Serve: %v", err)
	}
	f.ended = true
}

func TestLimit(t *testing.T) {
	f := serve(t, func(s *setup) { s.sessions = 3 })
	var fds []int
	for range 3 {
		fds = append(fds, f.placeholder())
	}
	for range 2 {
		if _, errno := f.socket(0); errno != unix.ENFILE {
			t.Errorf("one too many: %v", errno)
		}
		records, _, _ := f.take()
		const why = "the workload has 3 sessions open, the most that one may have"
		if len(records) != 1 || records[0].Allowed || records[0].Reason != why || records[0].Errno != uint32(unix.ENFILE) || records[0].Call != "socket" {
			t.Errorf("recorded %+v", records)
		}
	}
	f.close(fds[1])
	f.checkSessions(2)
	f.placeholder()
	if _, errno := f.socket(0); errno != unix.ENFILE {
		t.Errorf("one too many again: %v", errno)
	}
	f.checkSessions(3)
}

// The limit is the workload's, and a socket that failed takes no room.
func TestLimitAfterFailures(t *testing.T) {
	var say shared[error]
	f := serve(t, func(s *setup) { s.sessions, s.crypto.onSocket = 2, say.get })
	say.set(unix.ENOMEM)
	for range 10 {
		f.socket(0)
	}
	say.set(nil)
	f.placeholder()
	f.placeholder()
	f.checkSessions(2)
}

func TestDeadHelper(t *testing.T) {
	p := testPlan()
	p.SocketErrno = plan.Errno{Name: "EPROTO", Number: uint32(unix.EPROTO)}
	f := serve(t, func(s *setup) { s.plan, s.deaf = p, true })
	for range 3 {
		if _, errno := f.socket(0); errno != unix.EPROTO {
			t.Errorf("socket: %v, want the errno of the policy", errno)
		}
		records, _, failed := f.take()
		if len(records) != 1 || records[0].Allowed || !strings.Contains(records[0].Reason, "the helper") || records[0].Errno != uint32(unix.EPROTO) {
			t.Errorf("recorded %+v", records)
		}
		if len(failed) != 1 || !strings.HasPrefix(failed[0], "pairs: ") {
			t.Errorf("failed %v", failed)
		}
	}
	f.checkSessions(0)
}

// A caller that could take the broker apart gets nothing. Only root can be such
// a caller here: others load no filter without no_new_privs.
func TestPowerfulCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	f := serve(t, func(s *setup) { s.role = "powerful" })
	if _, errno := f.socket(0); errno != unix.EAFNOSUPPORT {
		t.Errorf("socket: %v", errno)
	}
	records, _, _ := f.take()
	const why = "the caller may hold CAP_SYS_PTRACE over the broker, and could take it apart: drop that capability"
	if len(records) != 1 || records[0].Allowed || records[0].Reason != why {
		t.Errorf("recorded %+v", records)
	}
}

func (f *fixture) interrupt() {
	f.Helper()
	f.cancel()
	if err := f.wait(); err != broker.ErrInterrupted {
		f.Fatalf("Serve: %v", err)
	}
	f.checkSessions(0)
}

// Calls that wait while nobody serves are answered by the next broker. Sessions
// go on, in the same workload or in one that they are given to.
func TestInterrupted(t *testing.T) {
	f := serve(t)
	bound, unbound := f.bound(), f.placeholder()
	for _, next := range []func(){
		func() {},
		func() {
			saved := f.workload.Save()
			if again := f.workload.Save(); len(saved) == 0 || again != nil {
				t.Errorf("saved %v, and again %v", saved, again)
			}
			f.workload = broker.NewWorkload("work", testPlan())
			f.workload.Restore(saved)
		},
	} {
		f.interrupt()
		f.begin(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		f.await(unix.POLLIN) // the call waits
		next()
		f.serve()
		fd, errno := f.result()
		if errno != 0 {
			t.Errorf("the call that waited: %v", errno)
		}
		f.checkSessions(3)
		f.checkOperation(&f.proc, bound)
		if _, errno := f.accept(unbound, 0); errno != unix.EINVAL {
			t.Errorf("accept on what was not bound: %v", errno)
		}
		f.close(fd)
		f.checkSessions(2)
	}
	if errno := f.bind(unbound, "hash", "md5"); errno != unix.ENOENT {
		t.Errorf("bind of what is denied: %v", errno)
	}
	if errno := f.bind(unbound, "hash", "sha256"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	f.checkOperation(&f.proc, unbound)
	f.close(unbound)
	f.checkSessions(1)
}

// A placeholder without a session is a socket that leads nowhere.
func TestGivenUp(t *testing.T) {
	f := serve(t)
	bound := f.bound()
	f.interrupt()
	for _, v := range f.workload.Save() {
		v.Close()
	}
	f.serve()
	if _, errno := f.accept(bound, 0); errno != unix.EINVAL {
		t.Errorf("accept: %v", errno)
	}
	if errno := f.bind(bound, "hash", "sha256"); errno != unix.EINVAL {
		t.Errorf("bind: %v", errno)
	}
}

// A session that ended while nobody served ends with the next Serve.
func TestRestored(t *testing.T) {
	f := serve(t)
	gone, left := f.placeholder(), f.bound()
	f.interrupt()
	f.close(gone)
	f.serve()
	f.checkSessions(1)
	f.checkOperation(&f.proc, left)
}

// Sessions without room are closed.
func TestRestoredWithoutRoom(t *testing.T) {
	f := serve(t, func(s *setup) { s.sessions = 1 })
	left := f.bound()
	f.interrupt()
	saved := f.workload.Save()
	if len(saved) != 1 {
		t.Errorf("saved %v", saved)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	f.workload.Restore(append(saved, broker.Saved{Inode: 1, Cookie: 1, Kept: ends[0], Parent: ends[1]}))
	f.serve()
	f.checkSessions(1)
	f.checkOperation(&f.proc, left)
}

func TestInterruptedBefore(t *testing.T) {
	f := serve(t)
	f.cancel()
	if err := f.wait(); err != broker.ErrInterrupted {
		t.Fatalf("Serve: %v", err)
	}
	f.serve()
	f.cancel()
	f.cancel()
	if err := f.wait(); err != broker.ErrInterrupted {
		t.Errorf("Serve: %v", err)
	}
}

func TestPanic(t *testing.T) {
	var explode shared[bool]
	boom := func() {
		if explode.get() {
			panic("boom")
		}
	}
	f := serve(t, func(s *setup) {
		s.sessions = 4
		s.crypto.onSocket = func() error { boom(); return nil }
		s.crypto.onBind = func(*unix.SockaddrALG) error { boom(); return nil }
		s.crypto.onOption = func(int, []byte, uint32) error { boom(); return nil }
		s.crypto.onAccept = func() error { boom(); return nil }
	})
	fd := f.bound()
	for range 5 { // more often than there may be sessions
		explode.set(true)
		_, socket := f.socket(0)
		bind := f.bind(fd, "hash", "sha256")
		key := f.setKey(fd, []byte("key"))
		_, accept := f.accept(fd, 0)
		explode.set(false)
		if socket != unix.ENOSYS || bind != unix.ENOSYS || key != unix.ENOSYS || accept != unix.ENOSYS {
			t.Errorf("socket %v, bind %v, setsockopt %v, accept %v", socket, bind, key, accept)
		}
		_, _, failed := f.take()
		if len(failed) != 4 || !strings.HasPrefix(failed[0], "panic: boom\n") {
			t.Errorf("failed %.60q", failed)
		}
	}
	f.checkOperation(&f.proc, fd)
	f.close(fd)
	f.checkSessions(0)
	if other, errno := f.socket(0); errno != 0 {
		t.Errorf("after panics: %v", errno)
	} else {
		f.close(other)
	}
}

// A call that takes long delays neither the rest of the workload, nor the rest
// of the broker.
func TestStuck(t *testing.T) {
	release, stuck := make(chan struct{}), make(chan struct{}, 10)
	f := serve(t, func(s *setup) {
		s.crypto.onBind = func(a *unix.SockaddrALG) error {
			if a.Type == "skcipher" {
				stuck <- struct{}{}
				<-release
			}
			return nil
		}
	})
	fd := f.placeholder()
	other := f.spawn(fd)
	f.begin(unix.SYS_BIND, uint64(fd), f.put(address("skcipher", "cbc(aes)")), 88)
	<-stuck
	for range 20 {
		own := other.bound()
		f.checkOperation(other, own)
		other.close(own)
	}
	f.checkSessions(1)
	close(release)
	if _, errno := f.result(); errno != 0 {
		t.Errorf("the bind that was stuck: %v", errno)
	}
	f.checkOperation(&f.proc, fd)
	f.checkOperation(other, fdPassed)
}

// After one stuck call, the next ones of that workload delay nobody: the first
// is noticed after a while, the others are expected.
func TestSlowWorkload(t *testing.T) {
	release, stuck := make(chan struct{}), make(chan struct{})
	f := serve(t, func(s *setup) {
		s.crypto.onBind = func(a *unix.SockaddrALG) error {
			if a.Type == "skcipher" {
				stuck <- struct{}{}
				<-release
			}
			return nil
		}
	})
	fd := f.placeholder()
	other := f.spawn(fd)
	beside := func() time.Duration {
		f.begin(unix.SYS_BIND, uint64(fd), f.put(address("skcipher", "cbc(aes)")), 88)
		<-stuck
		start := time.Now()
		other.close(other.bound())
		took := time.Since(start)
		release <- struct{}{}
		if _, errno := f.result(); errno != 0 {
			t.Error(errno)
		}
		return took
	}
	beside()
	// Without what was learned each session takes StuckAfter at least. On a
	// busy machine some take as long for another reason.
	var later []time.Duration
	for range 50 {
		later = later[:0]
		for range 11 {
			later = append(later, beside())
		}
		slices.Sort(later)
		if later[len(later)/2] < broker.StuckAfter {
			return
		}
	}
	t.Errorf("beside further calls that are stuck sessions took %v", later)
}

// The caller is killed while its call is carried out, and the session ends with
// the call.
func TestKilledWhileStuck(t *testing.T) {
	for _, step := range []string{"socket", "bind", "setsockopt", "accept"} {
		release, stuck := make(chan struct{}), make(chan struct{}, 10)
		hold := func(now string) error {
			if now == step {
				stuck <- struct{}{}
				<-release
			}
			return nil
		}
		t.Run(step, func(t *testing.T) {
			f := serve(t, func(s *setup) {
				s.crypto.onSocket = func() error { return hold("socket") }
				s.crypto.onBind = func(*unix.SockaddrALG) error { return hold("bind") }
				s.crypto.onOption = func(int, []byte, uint32) error { return hold("setsockopt") }
				s.crypto.onAccept = func() error { return hold("accept") }
			})
			f.beginStep(step)
			<-stuck
			f.end()
			f.await(unix.POLLHUP)
			close(release)
			if err := f.wait(); err != nil {
				t.Errorf("Serve: %v", err)
			}
			f.ended = true
			f.checkSessions(0)
			if _, _, failed := f.take(); failed != nil {
				t.Errorf("failed %v", failed)
			}
		})
	}
}

// beginStep brings a session to a step and begins that.
func (f *fixture) beginStep(step string) {
	f.Helper()
	if step == "socket" {
		f.begin(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		return
	}
	fd := uint64(f.placeholder())
	if step == "bind" {
		f.begin(unix.SYS_BIND, fd, f.put(address("hash", "sha256")), 88)
		return
	}
	f.bind(int(fd), "hash", "sha256")
	if step == "setsockopt" {
		f.begin(unix.SYS_SETSOCKOPT, fd, unix.SOL_ALG, unix.ALG_SET_KEY, f.room, 16)
		return
	}
	f.begin(unix.SYS_ACCEPT4, fd, 0, 0, 0)
}

// After a kill at any step nothing is left (the fixture counts).
func TestKilledBetween(t *testing.T) {
	for steps := range 5 {
		f := serve(t)
		for i, step := range []func(){
			func() { f.placeholder() },
			func() { f.bound() },
			func() { f.setKey(f.bound(), []byte("key")) },
			func() { f.checkOperation(&f.proc, f.bound()) },
		} {
			if i < steps {
				step()
			}
		}
		f.finish()
		f.ended = true
		f.checkSessions(0)
	}
}

// The filter traps a foreign call, and a call of another version's filter.
func TestUnknownCall(t *testing.T) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	f := serve(t, func(s *setup) { s.filter = filter })
	for range 3 {
		if _, errno := f.call(unix.SYS_GETPPID); errno != unix.ENOSYS {
			t.Errorf("getppid: %v", errno)
		}
	}
	records, _, failed := f.take()
	if len(records) != 0 || len(failed) != 3 || !strings.HasPrefix(failed[0], "unknown call: call ") {
		t.Errorf("%v, %v", records, failed)
	}
}

// Serve on anything but a listener ends with an error, and does not loop.
func TestServeNoListener(t *testing.T) {
	if _, err := notify.NewListener(-1); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
