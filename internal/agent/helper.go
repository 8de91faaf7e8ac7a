package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Helper is another process of this binary, which makes sockets: a way back to
// the maker of a socket must not lead to the agent. It ends with the agent, and
// the agent with it: a new agent starts with a new helper.
type Helper struct {
	Pairs   *broker.Pairs
	Sockets *broker.Sockets
	ping    *os.File
	command *exec.Cmd
	ended   chan struct{}
}

// The helper's sockets, by purpose.
const (
	helperPairs = iota
	helperSockets
	helperPing
	helperEnds
)

// firstFD is the number of the first descriptor that os/exec passes on.
const firstFD = 3

// StartHelper starts this binary with args, which make it call Help.
func StartHelper(args ...string) (*Helper, error) {
	var ours, theirs [helperEnds]*os.File
	defer closeFiles(theirs[:])
	for i := range helperEnds {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			closeFiles(ours[:])
			return nil, hosterr.Errorf("start the helper: %w", err)
		}
		ours[i], theirs[i] = os.NewFile(uintptr(ends[0]), "helper"), os.NewFile(uintptr(ends[1]), "helper")
	}
	h := &Helper{ended: make(chan struct{})}
	h.command = &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{os.Args[0]}, args...),
		Env: []string{}, Stderr: os.Stderr, ExtraFiles: theirs[:],
	}
	err := h.command.Start()
	if err == nil {
		err = h.adopt(ours)
	}
	if err != nil {
		closeFiles(ours[:])
		return nil, hosterr.Errorf("start the helper: %w", err)
	}
	go func() {
		h.command.Wait()
		close(h.ended)
	}()
	if err := h.check(liveTime); err != nil {
		h.Close()
		h.Pairs.Close()
		return nil, hosterr.Errorf("start the helper: %w", err)
	}
	return h, nil
}

// adopt keeps the garbage collector from closing the agent's ends.
func (h *Helper) adopt(ours [helperEnds]*os.File) error {
	var fds [helperEnds]int
	for i, f := range ours {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fds[i] = fd
	}
	if err := unix.SetNonblock(fds[helperPing], true); err != nil {
		return err
	}
	closeFiles(ours[:])
	h.Pairs, h.Sockets = broker.NewPairs(fds[helperPairs]), broker.NewSockets(fds[helperSockets])
	h.ping = os.NewFile(uintptr(fds[helperPing]), "ping")
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// check asks the helper whether it lives.
func (h *Helper) check(within time.Duration) error {
	h.ping.SetDeadline(time.Now().Add(within))
	_, err := h.ping.Write([]byte{0})
	if err == nil {
		_, err = h.ping.Read(make([]byte, 1))
	}
	if err != nil {
		return fmt.Errorf("the helper does not answer: %w", err)
	}
	return nil
}

// Close ends the helper; Pairs must be closed as well.
func (h *Helper) Close() {
	h.ping.Close()
	select {
	case <-h.ended:
	case <-time.After(liveTime):
		h.command.Process.Kill()
		<-h.ended
	}
}

// Help is the helper. It holds nothing that others could want, and ends when
// the agent closes any of its ends.
func Help() error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM) // they are for the agent
	if err := Prepare(); err != nil {
		return err
	}
	for i := range helperEnds {
		if _, err := unix.GetsockoptInt(firstFD+i, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return errors.New("this command is started by agent only")
		}
		unix.CloseOnExec(firstFD + i)
	}
	ended := make(chan error, helperEnds)
	go func() { ended <- broker.MakePairs(firstFD + helperPairs) }()
	go func() { ended <- broker.MakeSockets(firstFD + helperSockets) }()
	go func() { ended <- echo(firstFD + helperPing) }()
	return <-ended
}

func echo(fd int) error {
	buf := make([]byte, 1)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return err
		}
		if _, err := unix.Write(fd, buf); err != nil {
			return err
		}
	}
}

// Prepare keeps other processes of the same user out of this one, and raises
// its limit of descriptors.
func Prepare() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return hosterr.Errorf("become undumpable: %w", err)
	}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err == nil {
		limit.Cur = limit.Max
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		return hosterr.Errorf("raise the number of descriptors: %w", err)
	}
	return nil
}
