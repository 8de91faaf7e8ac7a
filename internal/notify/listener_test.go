package notify_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

func TestReceive(t *testing.T) {
	c := start(t)
	n := c.trap("1", "0xffffffffffffffff", "3", "0x100000004", "5", "6")
	want := notify.Notification{ID: n.ID, TID: uint32(c.Process.Pid)}
	want.Data = notify.Data{Nr: trapped, Arch: n.Data.Arch, IP: n.Data.IP, Args: [6]uint64{1, 1<<64 - 1, 3, 1<<32 | 4, 5, 6}}
	if n != want || n.Data.IP == 0 || n.Data.Arch == 0 {
		t.Errorf("received %+v, want %+v", n, want)
	}
	if err := c.Return(n.ID, 0); err != nil {
		t.Fatal(err)
	}
	c.Expect("0 0")
	if again := c.trap(); again.ID == n.ID {
		t.Errorf("two calls have the id %#x", n.ID)
	}
}

func TestAnswers(t *testing.T) {
	c := start(t)
	c.Say("ppid")
	c.Expect(fmt.Sprint(os.Getpid()))
	for _, test := range []struct {
		name   string
		answer func(id uint64) error
		want   string
	}{
		{"return", func(id uint64) error { return c.Return(id, 42) }, "42 0"},
		{"return 0", func(id uint64) error { return c.Return(id, 0) }, "0 0"},
		{"return a large value", func(id uint64) error { return c.Return(id, 1<<40) }, "1099511627776 0"},
		{"fail", func(id uint64) error { return c.Fail(id, unix.EACCES) }, "-1 13"},
		{"continue", c.Continue, fmt.Sprint(os.Getpid()) + " 0"},
	} {
		n := c.trap()
		if !c.Valid(n.ID) {
			t.Errorf("%s: the call is not valid while it waits", test.name)
		}
		if err := test.answer(n.ID); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		c.Expect(test.want)
		c.checkGone(n.ID)
	}
}

// checkGone asks for each answer to a call that does not wait.
func (c *trappedChild) checkGone(id uint64) {
	c.Helper()
	if c.Valid(id) {
		c.Errorf("call %#x is still valid", id)
	}
	null := openNull(c.T)
	_, added := c.AddFD(id, null, false, false)
	_, sent := c.AddFD(id, null, false, true)
	for what, err := range map[string]error{
		"return": c.Return(id, 1), "fail": c.Fail(id, unix.EPERM), "continue": c.Continue(id),
		"add a descriptor": added, "answer with a descriptor": sent,
	} {
		if err != notify.ErrGone {
			c.Errorf("%s: %v, want %v", what, err, notify.ErrGone)
		}
	}
}

func openNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestUnknownID(t *testing.T) {
	c := start(t)
	n := c.trap()
	c.checkGone(n.ID + 1)
	if err := c.Return(n.ID, 7); err != nil {
		t.Error(err)
	}
	c.Expect("7 0")
}

func TestAddFD(t *testing.T) {
	c := start(t)
	null := openNull(t)
	for _, test := range []struct {
		cloexec, answer bool
		flags           string
	}{
		{false, false, "0 <nil>"}, {true, false, "1 <nil>"}, {false, true, "0 <nil>"}, {true, true, "1 <nil>"},
	} {
		n := c.trap()
		fd, err := c.AddFD(n.ID, null, test.cloexec, test.answer)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Valid(n.ID); got == test.answer {
			t.Errorf("with answer %v, the call waits: %v", test.answer, got)
		}
		if !test.answer {
			if err := c.Return(n.ID, int64(fd)); err != nil {
				t.Error(err)
			}
		}
		c.Expect(fmt.Sprintf("%d 0", fd))
		c.Say("cloexec %d", fd)
		c.Expect(test.flags)
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.Process.Pid, fd))
		if err != nil || link != os.DevNull {
			t.Errorf("descriptor %d of the caller is %s, %v", fd, link, err)
		}
	}
}

// A failed answer leaves the call waiting.
func TestAddFDFails(t *testing.T) {
	c := start(t)
	null := openNull(t)
	for _, answer := range []bool{false, true} {
		n := c.trap()
		if _, err := c.AddFD(n.ID, 1<<20, false, answer); err != unix.EBADF {
			t.Errorf("a descriptor that we do not have: %v", err)
		}
		c.failed(n, unix.EBADF, "-1 9")
	}
	c.Say("nofile 0")
	c.Expect("<nil>")
	for _, answer := range []bool{false, true} {
		n := c.trap()
		if _, err := c.AddFD(n.ID, null, false, answer); err != unix.EMFILE {
			t.Errorf("no room in the caller's table: %v", err)
		}
		c.failed(n, unix.EMFILE, "-1 24")
	}
}

func (c *trappedChild) failed(n notify.Notification, errno unix.Errno, want string) {
	c.Helper()
	if !c.Valid(n.ID) {
		c.Error("the call does not wait any more")
	}
	if err := c.Fail(n.ID, errno); err != nil {
		c.Error(err)
	}
	c.Expect(want)
}

func TestKilledCaller(t *testing.T) {
	c := start(t)
	n := c.trap()
	c.Kill()
	c.checkGone(n.ID)
	c.await(unix.POLLHUP)
}

// A signal that does not kill does not interrupt a received call.
func TestSignalledCaller(t *testing.T) {
	c := start(t)
	n := c.trap()
	for range 20 {
		if err := unix.Tgkill(c.Process.Pid, int(n.TID), unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := c.Return(n.ID, 5); err != nil {
		t.Error(err)
	}
	c.Expect("5 0")
}

// After the listener is closed nobody answers, and nothing opens.
func TestClosedListener(t *testing.T) {
	c := start(t)
	n := c.trap()
	own, err := unix.FcntlInt(uintptr(c.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	if c.Listener, err = notify.NewListener(own); err != nil {
		t.Fatal(err)
	}
	if !c.Valid(n.ID) { // another descriptor is left
		t.Error("the call went with one of two descriptors")
	}
	if err := c.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	c.Expect("-1 38")
	c.Say("call")
	c.Expect("-1 38")
	c.Listener = nil
}

func TestSyncWakeUp(t *testing.T) {
	c := start(t)
	if err := c.SetSyncWakeUp(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		t.Error(err)
	}
	for i := range 50 {
		n := c.trap()
		if err := c.Return(n.ID, int64(i)); err != nil {
			t.Error(err)
		}
		c.Expect(fmt.Sprintf("%d 0", i))
	}
}

func TestNewListenerRefuses(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for fd, kind := range map[int]string{pipe[0]: "pipe:[", pipe[1]: "pipe:[", epoll: "anon_inode:[eventpoll]", null: os.DevNull} {
		l, err := notify.NewListener(fd)
		want := fmt.Sprintf("descriptor %d is no seccomp listener but %s", fd, kind)
		if err == nil || !strings.HasPrefix(err.Error(), want) || l != nil {
			t.Errorf("%v, %v; want %s", l, err, want)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s was left open", kind)
		}
	}
	if _, err := notify.NewListener(null); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), fmt.Sprintf("look at descriptor %d: ", null)) {
		t.Errorf("a closed descriptor: %v", err)
	}
}

// A file may have the name of a listener's link.
func TestNewListenerNamesake(t *testing.T) {
	path := t.TempDir() + "/anon_inode:seccomp notify"
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notify.NewListener(fd); err == nil {
		t.Errorf("%s passed for a listener", path)
	}
}

func TestNewListenerCloseOnExec(t *testing.T) {
	c := start(t)
	fd, err := unix.Dup(c.FD())
	if err != nil {
		t.Fatal(err)
	}
	l, err := notify.NewListener(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
		t.Errorf("flags %d, %v", flags, err)
	}
}

func TestInstall(t *testing.T) {
	c := start(t)
	c.Say("install")
	c.Expect("load the filter: this process is under a filter with a listener already, and a process has one at most: device or resource busy")
	for _, n := range []int{0, 4097} {
		want := fmt.Sprintf("load a filter of %d instructions: a program has 1 to 4096", n)
		if fd, err := notify.Install(make([]unix.SockFilter, n)); fd != -1 || err == nil || err.Error() != want {
			t.Errorf("%d instructions: %d, %v", n, fd, err)
		}
	}
	c.Say("garbage")
	c.Expect("load the filter: invalid argument")
}

// An ordinary user needs no_new_privs.
func TestInstallUnprivileged(t *testing.T) {
	cmd, _ := command(t, "privileged")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	const want = "privileged: load the filter: permission denied\n"
	if err == nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}
