package notify_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

const pages = 4

// mapping is memory whose third page is inaccessible, and whose last one is
// read-only.
func mapping(t *testing.T) (page int, at uint64, memory []byte) {
	t.Helper()
	page = unix.Getpagesize()
	memory, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for i := range memory {
		memory[i] = byte(i%251) + 1
	}
	if err := unix.Mprotect(memory[2*page:3*page], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mprotect(memory[3*page:], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(memory) })
	return page, uint64(uintptr(unsafe.Pointer(&memory[0]))), memory
}

func TestMemory(t *testing.T) {
	page, at, memory := mapping(t)
	self := uint32(unix.Getpid())
	for _, test := range []struct {
		name            string
		from, length    int
		reading, filing error // of a read, of a write
	}{
		{"the beginning", 0, 88, nil, nil},
		{"across pages", page - 40, 88, nil, nil},
		{"up to the hole", 2*page - 88, 88, nil, nil},
		{"into the hole", 2*page - 40, 88, unix.EFAULT, unix.EFAULT},
		{"over the hole", 2*page - 40, page + 88, unix.EFAULT, unix.EFAULT},
		{"in the hole", 2*page + 40, 88, unix.EFAULT, unix.EFAULT},
		{"out of the hole", 3*page - 40, 88, unix.EFAULT, unix.EFAULT},
		{"what can only be read", 3 * page, 88, nil, unix.EFAULT},
		{"nothing, in the hole", 2*page + 40, 0, nil, nil},
	} {
		buf := make([]byte, test.length)
		err := notify.ReadMemory(self, at+uint64(test.from), buf)
		if !errors.Is(err, test.reading) {
			t.Errorf("read %s: %v, want %v", test.name, err, test.reading)
		}
		if err == nil && !bytes.Equal(buf, memory[test.from:][:test.length]) {
			t.Errorf("read %s: %x", test.name, buf)
		}
		buf = bytes.Repeat([]byte{0xee}, test.length)
		err = notify.WriteMemory(self, at+uint64(test.from), buf)
		if !errors.Is(err, test.filing) {
			t.Errorf("write %s: %v, want %v", test.name, err, test.filing)
		}
		if err == nil && !bytes.Equal(buf, memory[test.from:][:test.length]) {
			t.Errorf("write %s: %x", test.name, memory[test.from:][:test.length])
		}
	}
}

// A partial transfer is an error that says how much it was.
func TestMemoryInPart(t *testing.T) {
	page, at, _ := mapping(t)
	err := notify.ReadMemory(uint32(unix.Getpid()), at+uint64(2*page-40), make([]byte, 88))
	want := "bad address: 40 bytes of 88: unexpected EOF"
	if fmt.Sprint(err) != want || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestMemoryOfNobody(t *testing.T) {
	c := start(t)
	tid := uint32(c.Process.Pid)
	c.Kill()
	for name, transfer := range map[string]func(uint32, uint64, []byte) error{"read": notify.ReadMemory, "write": notify.WriteMemory} {
		if err := transfer(tid, 4096, make([]byte, 8)); err != unix.ESRCH {
			t.Errorf("%s of a dead thread: %v", name, err)
		}
		if err := transfer(tid, 4096, nil); err != nil {
			t.Errorf("%s of nothing: %v", name, err)
		}
		for _, at := range []uint64{0, 1 << 63, 1<<64 - 8} {
			if err := transfer(uint32(unix.Getpid()), at, make([]byte, 16)); err != unix.EFAULT {
				t.Errorf("%s at %#x: %v", name, at, err)
			}
		}
	}
}
