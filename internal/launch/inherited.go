package launch

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// CheckInherited refuses a descriptor that this process inherited and would
// pass on to the command, and that no filter sees: a socket of the family, or a
// ring of io_uring, by which the kernel makes sockets. It cannot see
// descriptors in flight in a Unix socket.
func CheckInherited(family int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return hosterr.Errorf("look at the descriptors that were passed in: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == family {
			return fmt.Errorf("descriptor %d, passed in from outside, is an AF_ALG socket, which no filter restricts: start the command without it", fd)
		}
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && link == "anon_inode:[io_uring]" {
			return fmt.Errorf("descriptor %d, passed in from outside, is an io_uring, by which the command could make sockets: start it without", fd)
		}
	}
	return nil
}
