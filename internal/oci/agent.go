package oci

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reach asks whether an agent listens, if one is needed: the runtime would
// fail, and not say what for.
func (o Options) reach(out *Outcome) error {
	if len(out.Grants) == 0 && !o.Brokered {
		return nil
	}
	if len(out.Grants) > 0 && !heard(o.Agent) {
		out.Reason = fmt.Sprintf("the agent on %s is another user's and takes no grants from this one, so that it starts without them", o.Agent)
		out.Grants = nil
		return o.reach(out)
	}
	err := dial(o.Agent)
	switch {
	case err == nil:
		return nil
	case o.DenyWithoutAgent && !o.Brokered:
		out.Reason = fmt.Sprintf("no agent answers on %s (%v), so that it starts without its grants", o.Agent, err)
		out.Grants = nil
		return nil
	default:
		return refuse("no agent answers on %s: %v; start it (systemctl start afalg-policy-agent), or use --on-agent-down deny, which starts containers without what they are granted", o.Agent, err)
	}
}

// heard tells whether the agent on a socket listens to what this user says of
// grants: the host's root, and the agent's own user.
func heard(socket string) bool {
	if isHostRoot() {
		return true
	}
	var st unix.Stat_t
	err := unix.Stat(socket, &st)
	return errors.Is(err, unix.ENOENT) || err == nil && st.Uid == uint32(unix.Geteuid())
}

// isHostRoot tells root of the machine from root of a user namespace.
func isHostRoot() bool {
	uids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && unix.Geteuid() == 0 && strings.Join(strings.Fields(string(uids)), " ") == "0 0 4294967295"
}

const dialTime = 2 * time.Second

func dial(socket string) error {
	c, err := net.DialTimeout("unix", socket, dialTime)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return err
	}
	return c.Close()
}
