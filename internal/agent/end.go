package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// A runtime goes on once it has sent a listener, whatever happens to that. So
// the process of a refused container is killed: otherwise it would run under a
// filter that nobody listens to.

// refused says why a container is not served, and whether its process was
// killed.
func refused(id string, why, end error) error {
	if end != nil {
		return fmt.Errorf("container %q is refused, and goes on (%w); its trapped calls fail with ENOSYS: %w", id, end, why)
	}
	return fmt.Errorf("container %q is refused, and its process was killed: %w", id, why)
}

// target is the process that a peer names as the owner of a listener's filter.
// Facts read from /proc/PID were about it, if it could be signalled afterwards.
type target struct {
	pid, fd int // fd is a pidfd, -1 if there is none
	err     error
}

func openTarget(pid int) target {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return target{pid, -1, fmt.Errorf("process %d: %w", pid, err)}
	}
	return target{pid, fd, nil}
}

func (c target) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
}

// end kills the process, if the peer could have done so itself: nobody can use
// this process to kill another.
func (c target) end(p peer) error {
	if c.err != nil {
		return c.err
	}
	if p.pid == 0 || samePIDs(p.pid) != nil {
		return errors.New("its process ids mean nothing here")
	}
	if err := underFilter(c.pid); err != nil {
		return err
	}
	if err := c.belongsTo(p); err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(c.fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", c.pid, err)
	}
	return nil
}

// belongsTo checks that the process runs as the peer's user, or in a user
// namespace that this user made, as those of rootless containers do.
func (c target) belongsTo(p peer) error {
	if p.trusted() {
		return nil
	}
	status, err := proc.ReadStatus(fmt.Sprintf("/proc/%d", c.pid))
	if err != nil {
		return err
	}
	if status.UID == (proc.IDs{Real: p.uid, Effective: p.uid, Saved: p.uid, FS: p.uid}) {
		return nil
	}
	if owner, err := namespaceOwner(c.pid); err == nil && owner == p.uid {
		return nil
	}
	return fmt.Errorf("process %d is not user %d's", c.pid, p.uid)
}

// namespaceOwner returns the user who made the user namespace of a process.
func namespaceOwner(pid int) (uint32, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	return unix.IoctlGetUint32(int(ns.Fd()), unix.NS_GET_OWNER_UID)
}

// turnAway ends the container of a peer that is not heard. From now on sending
// the peer's message fails, and with it the runtime; a message that has arrived
// already did not fail.
func (a *Agent) turnAway(conn *net.UnixConn, raw syscall.RawConn, p peer, why error) error {
	if err := conn.CloseRead(); err != nil {
		return errors.Join(why, err)
	}
	s, l, err := hear(raw)
	if err != nil {
		return why
	}
	defer l.Close()
	c := openTarget(s.Pid)
	defer c.close()
	return refused(s.State.ID, why, c.end(p))
}
