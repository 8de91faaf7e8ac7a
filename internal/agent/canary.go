package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// canary is a thread of this process under a filter of its own, served by the
// broker as containers are. It shows whether trapped calls are answered.
type canary struct {
	calls   chan struct{}
	answers chan error
	waiting bool // a call was not answered in time, but still may be
	ended   chan struct{}
}

// newCanary checks that the kernel has what a broker needs.
func newCanary(b *broker.Broker) (*canary, error) {
	c := &canary{calls: make(chan struct{}), answers: make(chan error, 1), ended: make(chan struct{})}
	started := make(chan any, 1)
	go c.sing(started)
	var l *notify.Listener
	switch s := (<-started).(type) {
	case error:
		return nil, hosterr.Errorf("receive notifications of seccomp, which takes Linux 5.0 and no listener above this process: %w", s)
	case int:
		var err error
		if l, err = notify.NewListener(s); err != nil {
			c.close()
			return nil, hosterr.Errorf("receive notifications of seccomp: %w", err)
		}
	}
	go func() {
		defer close(c.ended)
		b.Serve(context.Background(), l, broker.NewWorkload("agent", &plan.Plan{}))
		l.Close()
	}()
	if err := c.check(liveTime); err != nil {
		c.close()
		return nil, hosterr.Errorf("%w", err)
	}
	return c, nil
}

// trapBind is a filter that traps bind.
var trapBind = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BIND, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
}

// sing binds a descriptor that is not open, each time that it is asked to. The
// thread stays locked, and ends with the goroutine.
func (c *canary) sing(started chan<- any) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() { // this one ends with the process only
		go c.sing(started)
		return
	}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	fd := -1
	if err == nil {
		fd, err = notify.Install(trapBind)
	}
	if err != nil {
		started <- err
		return
	}
	started <- fd
	for range c.calls {
		_, _, errno := unix.Syscall(unix.SYS_BIND, ^uintptr(0), 0, 0)
		err = nil
		if errno != unix.EBADF { // the kernel's answer, if the call goes on
			err = fmt.Errorf("a trapped call was answered %w", errno)
		}
		c.answers <- err
	}
}

// check makes a call, unless the last one is still waiting.
func (c *canary) check(within time.Duration) error {
	if !c.waiting {
		c.calls <- struct{}{}
	}
	select {
	case err := <-c.answers:
		c.waiting = false
		return err
	case <-time.After(within):
		c.waiting = true
		return errors.New("a trapped call was not answered")
	}
}

// close ends the thread, and with it the listener.
func (c *canary) close() {
	close(c.calls)
	select {
	case <-c.ended:
	case <-time.After(liveTime):
	}
}

// liveTime bounds the time for a part of the agent to show that it lives.
const liveTime = 3 * time.Second

// ticks returns the times at which the service manager wants to hear from us;
// never if it does not.
func (a *Agent) ticks() <-chan time.Time {
	if a.watch == 0 || !a.manager.Present() {
		return nil
	}
	return time.Tick(max(a.watch/3, time.Millisecond))
}

// prove tells the service manager that the agent lives, if it does: trapped
// calls are answered, connections are accepted, and the helper is there.
func (a *Agent) prove() {
	within := min(liveTime, a.watch/4)
	err := errors.Join(a.canary.check(within), a.socket.check(within), a.o.Helper.check(within), a.o.Alive())
	if err != nil {
		a.failed("watchdog", err)
		return
	}
	a.tell("WATCHDOG=1", a.statusLine())
}

// check connects as a runtime does. The agent recognizes itself, and closes.
func (s *socket) check(within time.Duration) error {
	conn, err := net.DialTimeout("unix", s.path, within)
	if err != nil {
		return fmt.Errorf("connect to itself: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(within))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("a connection was not taken: %w", err)
	}
	return nil
}
