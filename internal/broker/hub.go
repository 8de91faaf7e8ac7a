package broker

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// hub waits for the events of all workloads: a waiting call, a placeholder
// without copies, the end of a workload. It is one epoll instance, and one
// thread at a time blocks in it: the kernel wakes that thread at once, on the
// caller's processor, and takes workloads in turn. Goroutines parked in the Go
// runtime's poller take three times as long, since its idle threads look for
// work meanwhile. An idle workload costs no thread.
type hub struct {
	epoll, stop int // stop is an eventfd: readable when the hub is to close

	// waiting is held by the worker that waits, until it knows the event: epoll
	// repeats an event, and one worker at a time may see it.
	waiting sync.Mutex

	mu    sync.Mutex
	next  uint64
	items map[uint64]item
}

// item is the meaning of a descriptor in the hub.
type item struct {
	s     *server
	inode uint64 // of a placeholder; 0 for the listener of s
}

// tagStop is the tag of no item.
const tagStop = 0

func newHub() (h *hub, err error) {
	h = &hub{epoll: -1, stop: -1, items: map[uint64]item{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("set up the waiting for calls: %w", err)
			h.close()
		}
	}()
	if h.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	return h, h.control(unix.EPOLL_CTL_ADD, h.stop, unix.EPOLLIN, tagStop)
}

func (h *hub) control(op, fd int, events uint32, tag uint64) error {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(tag)), Pad: int32(uint32(tag >> 32))}
	return unix.EpollCtl(h.epoll, op, fd, &e)
}

// name gives an item a tag, before any event of it. It writes the tag under the
// lock, so that whoever finds the item sees it.
func (h *hub) name(tag *uint64, it item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.items[h.next] = it
	*tag = h.next
}

// add makes the hub wait for the descriptor of an item.
func (h *hub) add(fd int, events uint32, tag uint64) error {
	if err := h.control(unix.EPOLL_CTL_ADD, fd, events, tag); err != nil {
		h.forget(tag)
		return fmt.Errorf("wait for a descriptor: %w", err)
	}
	return nil
}

// forget drops the events of an item from now on.
func (h *hub) forget(tag uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.items, tag)
}

func (h *hub) find(tag uint64) (item, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it, ok := h.items[tag]
	return it, ok
}

// wait returns the next event of an item; false when the hub closes.
func (h *hub) wait() (it item, events uint32, ok bool) {
	var e [1]unix.EpollEvent
	for {
		n, err := unix.EpollWait(h.epoll, e[:], -1)
		if err == unix.EINTR || n == 0 && err == nil {
			continue
		}
		if err != nil {
			return item{}, 0, false
		}
		tag := uint64(uint32(e[0].Fd)) | uint64(uint32(e[0].Pad))<<32
		if tag == tagStop {
			return item{}, 0, false
		}
		if it, found := h.find(tag); found {
			return it, e[0].Events, true
		}
	}
}

// interrupt ends every wait, present and future.
func (h *hub) interrupt() { unix.Write(h.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (h *hub) close() { notify.CloseAll([]int{h.epoll, h.stop}) }
