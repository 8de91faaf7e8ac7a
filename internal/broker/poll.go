package broker

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for what happens in one workload: a call that waits, a
// placeholder that nobody holds any more, the end. It is an epoll instance of
// its own.
//
// How it waits makes the cost of a session. A goroutine that parks is cheap to
// keep and slow to wake, because the runtime's threads then spin and poll; a
// thread that blocks in epoll_wait is woken at once by the kernel, on the
// caller's processor. So a poller blocks for a while after each event, and parks
// when nothing happens: an idle workload costs no thread.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	stop int // an eventfd; readable when the poller is to stop
	hot  *atomic.Int32

	mu sync.Mutex // one goroutine waits at a time
}

// event is what a poller waited for.
type event struct {
	kind eventKind
	// inode of the placeholder that was closed.
	inode uint64
}

type eventKind int

const (
	eventCall eventKind = iota
	eventClosed
	eventEnded
	eventStop
)

// The tags of the two descriptors that are no kept ends; inodes are 32 bits
// wide, though their type is not.
const (
	tagListener = 1<<64 - 1
	tagStop     = 1<<64 - 2
)

const (
	// hotTime is how long a poller blocks before it parks, in milliseconds.
	hotTime = 5
	// maxHot bounds the threads that block at the same time.
	maxHot = 16
)

func newPoller(listener int, hot *atomic.Int32) (p *poller, err error) {
	p = &poller{fd: -1, stop: -1, hot: hot}
	defer func() {
		if err != nil {
			err = fmt.Errorf("set up the waiting for calls: %w", err)
			p.close()
		}
	}()
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if err = p.add(p.stop, unix.EPOLLIN, tagStop); err != nil {
		return nil, err
	}
	if err = p.add(listener, unix.EPOLLIN, tagListener); err != nil {
		return nil, err
	}
	// The Go runtime polls only what does not block.
	if err = unix.SetNonblock(p.fd, true); err != nil {
		return nil, err
	}
	p.file = os.NewFile(uintptr(p.fd), "poller")
	p.raw, err = p.file.SyscallConn()
	return p, err
}

// watch has the poller tell, once, when the kept end hangs up. That is always
// told; the helper that made the pair may have a copy still, which would tell it
// again and again.
func (p *poller) watch(kept int, inode uint64) error { return p.add(kept, unix.EPOLLET, inode) }

func (p *poller) add(fd int, events uint32, tag uint64) error {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(tag)), Pad: int32(uint32(tag >> 32))}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &e)
}

// interrupt has every wait, present and future, end with eventStop.
func (p *poller) interrupt() error {
	_, err := unix.Write(p.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

func (p *poller) close() {
	if p.stop >= 0 {
		unix.Close(p.stop)
	}
	switch {
	case p.file != nil:
		p.file.Close()
	case p.fd >= 0:
		unix.Close(p.fd)
	}
}

// wait returns the next event. The caller holds the lock, and keeps it until it
// has dealt with the event: it would be told again.
func (p *poller) wait() (event, error) {
	var events [1]unix.EpollEvent
	n, err := p.block(events[:])
	if n == 0 && err == nil {
		_, err = p.park(events[:])
	}
	if err != nil {
		return event{}, fmt.Errorf("wait for calls: %w", err)
	}
	e := events[0]
	switch tag := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32; {
	case tag == tagStop:
		return event{kind: eventStop}, nil
	case tag != tagListener:
		return event{kind: eventClosed, inode: tag}, nil
	case e.Events&unix.EPOLLIN != 0:
		return event{kind: eventCall}, nil
	}
	return event{kind: eventEnded}, nil
}

// block waits in the kernel, for a while.
func (p *poller) block(events []unix.EpollEvent) (int, error) {
	if p.hot.Add(1) > maxHot {
		p.hot.Add(-1)
		return 0, nil
	}
	defer p.hot.Add(-1)
	n, err := unix.EpollWait(p.fd, events, hotTime)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

// park waits in the Go runtime.
func (p *poller) park(events []unix.EpollEvent) (n int, err error) {
	parked := p.raw.Read(func(fd uintptr) bool {
		n, err = unix.EpollWait(int(fd), events, 0)
		if err == unix.EINTR {
			n, err = 0, nil
		}
		return n > 0 || err != nil
	})
	if parked != nil {
		return 0, parked
	}
	return n, err
}
