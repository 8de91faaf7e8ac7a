package probe

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of include/uapi/linux/io_uring.h for one operation.
const (
	opcodeSocket  = 45 // IORING_OP_SOCKET
	setupSQPoll   = 1 << 1
	setupAttachWQ = 1 << 5
	enterGetEvent = 1 << 0

	// mmap offsets
	offsetSQ   = 0
	offsetCQ   = 0x8000000
	offsetSQEs = 0x10000000

	// struct io_uring_params; its sq_off is at 40 and its cq_off at 80
	paramFlags   = 8
	paramIdle    = 16 // milliseconds
	paramWQFd    = 24
	paramSQTail  = 40 + 4
	paramSQArray = 40 + 24
	paramCQHead  = 80
	paramCQTail  = 80 + 4
	paramCQEs    = 80 + 20

	// struct io_uring_sqe
	sqeFd   = 4
	sqeOff  = 8
	sqeLen  = 24
	sqeSize = 64

	cqeResult = 8 // struct io_uring_cqe
)

// Waiting for the kernel's thread: how often to look, and how many times.
const (
	pollEvery = 10 * time.Millisecond
	pollTimes = 300
)

// ringSocket makes a socket by IORING_OP_SOCKET, with the system calls of e. If
// it fails before the operation, the stage says so.
func (e entry) ringSocket(q ask) (fd int32, st stage, errno unix.Errno) {
	poll := q.Op == opIOUringPoll
	if poll {
		e.put(0, paramFlags, setupSQPoll)
		e.put(0, paramIdle, 1000)
	}
	r, errno := e.syscall(e.IOUring, 1, e.address(0))
	if errno != 0 {
		return 0, stageSetup, errno
	}
	ring := int(int32(r))
	defer unix.Close(ring)
	sq, cq, sqes, err := mapRing(ring)
	defer unmap(sq, cq, sqes)
	if err != nil {
		return 0, stageMap, err.(unix.Errno)
	}
	q.queue(sqes)
	binary.NativeEndian.PutUint32(sq[e.param(paramSQArray):], 0)
	atomic.AddUint32(word(sq, e.param(paramSQTail)), 1)
	if !poll {
		_, errno = e.syscall(e.IOUring+1, uintptr(ring), 1, 1, enterGetEvent)
		if errno != 0 {
			return 0, stageEnter, errno
		}
	}
	return e.reap(cq, func() {
		if poll {
			e.wake(ring)
		}
	})
}

// wake makes the ring's thread look at its queue, without io_uring_enter: a
// second ring that shares the thread does. The thread starts without patience
// and may have gone to sleep before anything was queued.
func (e entry) wake(ring int) {
	e.put(pageArgs, paramFlags, setupSQPoll|setupAttachWQ)
	e.put(pageArgs, paramIdle, 1000)
	e.put(pageArgs, paramWQFd, uint32(ring))
	if r, errno := e.syscall(e.IOUring, 1, e.address(pageArgs)); errno == 0 {
		unix.Close(int(int32(r)))
	}
}

// mapRing maps the two rings and the submission entries, a page of each: that
// is plenty for one entry.
func mapRing(ring int) (sq, cq, sqes []byte, err error) {
	for _, m := range []struct {
		at     *[]byte
		offset int64
	}{{&sq, offsetSQ}, {&cq, offsetCQ}, {&sqes, offsetSQEs}} {
		*m.at, err = unix.Mmap(ring, m.offset, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			break
		}
	}
	return sq, cq, sqes, err
}

// unmap releases a ring: while it is mapped it does not end, and the kernel's
// thread goes on looking at it.
func unmap(maps ...[]byte) {
	for _, m := range maps {
		if m != nil {
			unix.Munmap(m)
		}
	}
}

// queue writes the submission entry: IORING_OP_SOCKET has the family in fd,
// the type in off and the protocol in len.
func (q ask) queue(sqes []byte) {
	sqe := sqes[:sqeSize]
	sqe[0] = opcodeSocket
	binary.NativeEndian.PutUint32(sqe[sqeFd:], uint32(q.Family))
	binary.NativeEndian.PutUint64(sqe[sqeOff:], uint64(q.Type))
	binary.NativeEndian.PutUint32(sqe[sqeLen:], uint32(q.Protocol))
}

// reap waits for the completion and returns its result; it calls nudge now and
// then meanwhile.
func (e entry) reap(cq []byte, nudge func()) (int32, stage, unix.Errno) {
	head, tail := word(cq, e.param(paramCQHead)), word(cq, e.param(paramCQTail))
	for i := 0; atomic.LoadUint32(tail) == *head; i++ {
		if i == pollTimes {
			return 0, stageEnter, unix.EAGAIN
		}
		if i%10 == 1 {
			nudge()
		}
		time.Sleep(pollEvery)
	}
	result := int32(binary.NativeEndian.Uint32(cq[e.param(paramCQEs)+cqeResult:]))
	if result < 0 {
		return 0, "", unix.Errno(-result)
	}
	return result, "", 0
}

// put writes a field of the struct io_uring_params at an offset of the page.
func (e entry) put(params, field int, value uint32) {
	binary.NativeEndian.PutUint32(e.page[params+field:], value)
}

// param reads an offset that io_uring_setup filled in.
func (e entry) param(offset int) uint32 { return binary.NativeEndian.Uint32(e.page[offset:]) }

func word(b []byte, offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[offset])) }
