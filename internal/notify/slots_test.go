package notify

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSlots(t *testing.T) {
	first, err := NewSlots()
	if err != nil {
		t.Fatal(err)
	}
	first.Set(3, 7)
	first.Set(4, 8)
	first.Set(4, 0)
	fd, err := unix.FcntlInt(uintptr(first.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	second, err := OpenSlots(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for i := range SlotCount {
		want := uint64(0)
		if i == 3 {
			want = 7
		}
		if got := second.ids[i].Load(); got != want {
			t.Errorf("slot %d holds %d, want %d", i, got, want)
		}
	}
	if err := unix.Ftruncate(second.FD(), 0); err != unix.EPERM {
		t.Errorf("the memory could be taken away: %v", err)
	}
	var none *Slots
	none.Set(0, 1)
	none.Close()
}

func TestOpenSlotsRefuses(t *testing.T) {
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	short, err := unix.MemfdCreate("short", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{"a file": int(plain.Fd()), "not sealed": short, "nothing": -1} {
		if fd >= 0 {
			if fd, err = unix.Dup(fd); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := OpenSlots(fd); err == nil {
			s.Close()
			t.Errorf("%s was taken for slots", name)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Errorf("%s: the descriptor was left open", name)
		}
	}
	unix.Close(short)
}
