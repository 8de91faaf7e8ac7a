package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// protocolALG is the kernel's name for the sockets of AF_ALG (alg_proto in
// crypto/af_alg.c).
const protocolALG = "ALG"

// samePIDs refuses a peer whose process ids are not ours. A peer that has gone
// meanwhile cannot be asked.
func samePIDs(pid int) error {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	ours, err2 := os.Readlink("/proc/self/ns/pid")
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("compare PID namespaces: %w", err)
	}
	if theirs != ours {
		return fmt.Errorf("it is in another PID namespace (%s, not %s), and process ids mean something else there", theirs, ours)
	}
	return nil
}

// underFilter refuses a process without a filter: the listener's cannot be its
// own.
func underFilter(pid int) error {
	status, err := proc.ReadStatus(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return fmt.Errorf("look at its process: %w", err)
	}
	if status.Seccomp != proc.ModeFilter {
		return fmt.Errorf("its process %d is under no filter", pid)
	}
	return nil
}

// checkDescriptors refuses a process that holds something that no filter sees:
// a socket of the protocol, with which the broker's answers would not be safe,
// or a ring of io_uring, by which the kernel makes sockets.
func checkDescriptors(pid int, protocol string) error {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for AF_ALG among the descriptors of process %d: %w", pid, err)
	}
	for _, e := range entries {
		link, err := os.Readlink(dir + e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed meanwhile
			continue
		case err != nil:
			return fmt.Errorf("look for AF_ALG at descriptor %s of process %d: %w", e.Name(), pid, err)
		case link == "anon_inode:[io_uring]":
			return fmt.Errorf("its process %d holds an io_uring (descriptor %s), by which it could make sockets", pid, e.Name())
		case !strings.HasPrefix(link, "socket:["):
			continue
		}
		got, err := protocolOf(dir + e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("ask for the protocol of descriptor %s of process %d: %w", e.Name(), pid, err)
		case got == protocol:
			return fmt.Errorf("its process %d holds an AF_ALG socket (descriptor %s), which no filter restricts", pid, e.Name())
		}
	}
	return nil
}

// protocolOf returns the name of the protocol in the kernel's file system of
// sockets.
func protocolOf(path string) (string, error) {
	var name [64]byte
	n, err := unix.Getxattr(path, "system.sockprotoname", name[:])
	if err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name[:n]), nil
}
