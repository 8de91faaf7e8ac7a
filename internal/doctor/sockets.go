package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// holder is a process with open sockets of AF_ALG.
type holder struct {
	pid     int
	sockets int
}

// holding is what was found of open sockets. What is not whole shows who holds one,
// and never that nobody does.
type holding struct {
	holders []holder
	looked  int   // processes whose descriptors were all seen
	unseen  int   // those that could not be looked into
	because error // of the first of them
	why     error // nothing is known
}

// whole reports whether every descriptor of every process was seen.
func (h holding) whole() bool { return h.why == nil && h.unseen == 0 }

// The kernel names the protocol of a socket in an extended attribute of its
// descriptor in /proc. So it is known without a copy of the descriptor, which could
// keep a connection open, and without a socket of one's own, which would load
// AF_ALG.
const (
	protocolAttribute = "system.sockprotoname"
	algProtocol       = "ALG"
)

var errOutOfTime = errors.New("there was no time to look at the descriptors of every process")

// findHolders looks through the descriptors of all processes until the deadline.
// Sockets that no process has as a descriptor are not found: those on their way in
// a message, and those that only io_uring has.
func findHolders(root, protocol string, deadline time.Time) (h holding) {
	l := looker{protocol, deadline}
	if err := namesProtocols(); err != nil {
		h.why = fmt.Errorf("the kernel does not say what a socket is: %w", err)
		return h
	}
	pids, err := proc.Numbers(root)
	if err != nil {
		h.why = err
		return h
	}
	for _, pid := range pids {
		if time.Now().After(deadline) {
			h.why = errOutOfTime
			return h
		}
		switch sockets, err := l.process(filepath.Join(root, strconv.Itoa(pid))); {
		case err == nil && sockets > 0:
			h.holders = append(h.holders, holder{pid, sockets})
			h.looked++
		case err == nil:
			h.looked++
		case isGone(err):
		default:
			if sockets > 0 {
				h.holders = append(h.holders, holder{pid, sockets})
			}
			if h.unseen++; h.because == nil {
				h.because = fmt.Errorf("process %d: %w", pid, err)
			}
		}
	}
	return h
}

// namesProtocols asks about a socket that is known.
func namesProtocols() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	name, err := protocolOf(fmt.Sprintf("/proc/self/fd/%d", pair[0]))
	if err == nil && !strings.HasPrefix(name, "UNIX") {
		err = fmt.Errorf("a Unix socket is called %q", name)
	}
	return err
}

func protocolOf(descriptor string) (string, error) {
	var name [64]byte // the kernel's own have 32
	n, err := unix.Getxattr(descriptor, protocolAttribute, name[:])
	if err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name[:n]), nil
}

// looker counts sockets of a protocol until a deadline.
type looker struct {
	protocol string
	deadline time.Time
}

// process counts those of a process. A thread may have a table of
// descriptors of its own.
func (l looker) process(dir string) (sockets int, err error) {
	tids, err := proc.Numbers(filepath.Join(dir, "task"))
	if err != nil {
		return 0, err
	}
	var tables []int // a thread for each
	for _, tid := range tids {
		if slices.ContainsFunc(tables, func(other int) bool { return sameDescriptors(tid, other) }) {
			continue
		}
		n, err := l.table(filepath.Join(dir, "task", strconv.Itoa(tid), "fd"))
		sockets += n
		if isGone(err) {
			continue
		}
		if err != nil {
			return sockets, err
		}
		tables = append(tables, tid)
	}
	if len(tables) == 0 {
		return sockets, fs.ErrNotExist // it ended meanwhile
	}
	return sockets, nil
}

// sameDescriptors reports whether two threads are known to share their descriptors.
func sameDescriptors(a, b int) bool {
	const files = 2 // KCMP_FILES
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), files, 0, 0, 0)
	return errno == 0 && order == 0
}

// chunk is how many names of descriptors are read at a time: a process may have a
// million.
const chunk = 1024

func (l looker) table(dir string) (sockets int, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(chunk)
		for _, name := range names {
			path := filepath.Join(dir, name)
			link, err := os.Readlink(path)
			if isGone(err) {
				continue // closed meanwhile
			}
			if err != nil {
				return sockets, err
			}
			if !strings.HasPrefix(link, "socket:[") {
				continue
			}
			switch protocol, err := protocolOf(path); {
			case err == nil && protocol == l.protocol:
				sockets++
			case err == nil, isGone(err), errors.Is(err, unix.ENOTSUP): // another file took the number
			default:
				return sockets, err
			}
		}
		switch {
		case len(names) == 0:
			return sockets, nil // io.EOF, or the process has ended
		case err != nil:
			return sockets, err
		case time.Now().After(l.deadline):
			return sockets, errOutOfTime
		}
	}
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
