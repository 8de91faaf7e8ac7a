package notify

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// ReadMemory copies from a thread's memory. It fails unless it can read all of
// it. It can block for as long as a page of that memory makes it (FUSE,
// userfaultfd).
func ReadMemory(tid uint32, addr uint64, into []byte) error {
	return transfer(unix.ProcessVMReadv, tid, addr, into)
}

// WriteMemory copies into a thread's memory. It fails unless it can write all
// of it; it may have written a part.
func WriteMemory(tid uint32, addr uint64, from []byte) error {
	return transfer(unix.ProcessVMWritev, tid, addr, from)
}

type vmCall func(pid int, local []unix.Iovec, remote []unix.RemoteIovec, flags uint) (int, error)

func transfer(call vmCall, tid uint32, addr uint64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	if uint64(uintptr(addr)) != addr {
		return unix.EFAULT
	}
	local := [1]unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	remote := [1]unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	n, err := call(int(tid), local[:], remote[:], 0)
	switch {
	case err != nil:
		return err
	case n != len(buf):
		return fmt.Errorf("%w: %d bytes of %d: %w", unix.EFAULT, n, len(buf), io.ErrUnexpectedEOF)
	}
	return nil
}
