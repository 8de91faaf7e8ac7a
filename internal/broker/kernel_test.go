package broker_test

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
)

// capabilitiesHere returns the capabilities of this thread.
func capabilitiesHere(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nCapInh:")
	sets, _, _ := strings.Cut(rest, "\nNoNewPrivs")
	return sets
}

// The kernel's side returns the kernel's errors, and a bind without privilege
// leaves ours as it was. The tests in virtual machines cover AF_ALG itself.
func TestKernel(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var k broker.Kernel
	before := capabilitiesHere(t)
	for _, privileged := range []bool{true, false} {
		if err := k.Bind(-1, &unix.SockaddrALG{Type: "hash", Name: "sha256"}, privileged); err != unix.EBADF {
			t.Errorf("bind, privileged %v: %v", privileged, err)
		}
	}
	if after := capabilitiesHere(t); after != before {
		t.Errorf("capabilities were%s\nand are%s", before, after)
	}
	if err := k.SetOption(-1, unix.ALG_SET_KEY, []byte("key"), 3); err != unix.EBADF {
		t.Errorf("setsockopt: %v", err)
	}
	if fd, err := k.Accept(-1, 0); fd != -1 || err != unix.EBADF {
		t.Errorf("accept: %d, %v", fd, err)
	}
	fd, err := k.Socket()
	if err == nil {
		unix.Close(fd)
	} else if err != unix.EAFNOSUPPORT {
		t.Errorf("socket: %v", err)
	}
}
