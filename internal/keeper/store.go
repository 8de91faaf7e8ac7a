package keeper

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Limits of the store. maxStored is that of the agent's unit
// (FileDescriptorStoreMax=). The names go to the agent in one variable, and Linux
// takes no longer one than 128 KiB (MAX_ARG_STRLEN): a store with more could not be
// passed on, and everything in it would be lost.
const (
	maxStored  = 15360
	maxNames   = 120 << 10
	maxName    = 255 // as systemd's
	spareFiles = 64  // descriptors for everything else
)

// unnamed is the name of what comes without one (sd_pid_notify_with_fds(3)).
const unnamed = "stored"

// store holds the descriptors that an agent wants to outlive it.
type store struct {
	entries []entry
	most    int // descriptors
	names   int // bytes
}

type entry struct {
	name string
	fd   int
}

// newStore makes a store as large as this process may have descriptors.
func newStore() *store {
	s := &store{most: maxStored}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < maxStored+spareFiles {
		s.most = max(0, int(limit.Cur)-spareFiles)
	}
	return s
}

// add takes descriptors over, all of them or none.
func (s *store) add(name string, fds []int) error {
	err := checkName(name)
	switch names := s.names + len(fds)*(len(name)+1); {
	case err != nil:
	case len(fds) == 0:
		err = errors.New("there is no descriptor to keep")
	case len(s.entries)+len(fds) > s.most:
		err = fmt.Errorf("%d descriptors are kept, and %d more would be too many", len(s.entries), len(fds))
	case names > maxNames:
		err = fmt.Errorf("%d descriptors are kept, and the names of more could not be passed to the next agent", len(s.entries))
	default:
		s.names = names
		for _, fd := range fds {
			s.entries = append(s.entries, entry{name, fd})
		}
		return nil
	}
	notify.CloseAll(fds)
	return err
}

// checkName refuses what LISTEN_FDNAMES cannot carry, and the names of the sockets:
// what comes under them would be taken for those that others connect to.
func checkName(name string) error {
	unfit := func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, unfit) || name == listenName || name == doorName {
		return fmt.Errorf("%.64q is no name for a descriptor", name)
	}
	return nil
}

// forget closes everything of a name.
func (s *store) forget(name string) {
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool {
		if e.name != name {
			return false
		}
		unix.Close(e.fd)
		s.names -= len(name) + 1
		return true
	})
}

func (s *store) close() {
	for _, e := range s.entries {
		unix.Close(e.fd)
	}
	s.entries, s.names = nil, 0
}
