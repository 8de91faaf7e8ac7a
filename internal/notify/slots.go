package notify

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slots is memory that outlives a supervisor, and says which calls it was
// answering when it was killed: the kernel does not report a received call
// again, and its thread would wait for ever. A slot belongs to one goroutine at
// a time. A nil Slots accepts every call and keeps none.
type Slots struct {
	fd  int
	mem []byte
	ids []atomic.Uint64
}

const (
	// SlotCount is the number of slots.
	SlotCount = 64
	// SlotsName is the name of their memory in /proc.
	SlotsName = "afalg-policy-calls"
)

const slotBytes = SlotCount * 8

// NewSlots makes slots, all empty.
func NewSlots() (*Slots, error) {
	fd, err := unix.MemfdCreate(SlotsName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory for calls under way: %w", err)
	}
	if err := unix.Ftruncate(fd, slotBytes); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make memory for calls under way: %w", err)
	}
	// Anybody who shortened it would end us, by SIGBUS.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, slotSeals); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make memory for calls under way: %w", err)
	}
	return OpenSlots(fd)
}

const slotSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// OpenSlots takes over a descriptor of an earlier supervisor's slots, and
// closes it if it is anything else.
func OpenSlots(fd int) (*Slots, error) {
	mem, err := mapSlots(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("map the memory of calls under way: %w", err)
	}
	return &Slots{fd, mem, unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[0])), SlotCount)}, nil
}

func mapSlots(fd int) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if seals&slotSeals != slotSeals || st.Size != slotBytes {
		return nil, fmt.Errorf("%d bytes, seals %#x", st.Size, seals)
	}
	return unix.Mmap(fd, 0, slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// FD returns the descriptor, which the slots keep.
func (s *Slots) FD() int { return s.fd }

// Set puts a call into a slot; 0 empties it.
func (s *Slots) Set(slot int, id uint64) {
	if s != nil {
		s.ids[slot].Store(id)
	}
}

// Close unmaps the memory. The slots must not be used any more.
func (s *Slots) Close() {
	if s != nil {
		unix.Munmap(s.mem)
		unix.Close(s.fd)
	}
}

// FailLost ends the calls that an earlier supervisor received and did not
// answer, and returns their number. Nobody may be serving the listener.
func (l *Listener) FailLost(s *Slots, errno unix.Errno) (lost int) {
	for i := range s.ids {
		if id := s.ids[i].Swap(0); id != 0 && l.Fail(id, errno) == nil {
			lost++
		}
	}
	return lost
}
