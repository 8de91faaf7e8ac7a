package oci

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
)

// reach asks whether an agent listens, if one is needed: the runtime would
// fail, and not say what for.
func (o Options) reach(out *Outcome) error {
	decided := len(o.Plan.WithAlgorithms(out.Grants)) > 0
	if !decided && !out.Brokered {
		return nil
	}
	if decided && !heard(o.Agent) {
		out.Reason = fmt.Sprintf("the agent on %s is another user's and takes no grants from this one, so that it starts without them", o.Agent)
		out.Grants = o.undecided(out.Grants)
		return o.reach(out)
	}
	err := dial(o.Agent)
	switch {
	case err == nil:
		return nil
	case o.DenyWithoutAgent && o.Socketcall != harden.SocketcallBroker:
		out.Reason = fmt.Sprintf("no agent answers on %s (%v), so that it starts without its grants", o.Agent, err)
		out.Grants, out.Brokered = o.undecided(out.Grants), false
		return nil
	default:
		return refuse("no agent answers on %s: %v; set it up (afalg-policy install agent), or start it (systemctl start afalg-policy-agent); --on-agent-down deny starts containers without what they are granted", o.Agent, err)
	}
}

// undecided are the rules that take no agent: those that allow denied classes
// alone.
func (o Options) undecided(grants []string) (names []string) {
	decided := o.Plan.WithAlgorithms(grants)
	for _, name := range grants {
		if !slices.Contains(decided, name) {
			names = append(names, name)
		}
	}
	return names
}

// heard reports whether the agent on a socket listens to what this user says of
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
	var op *net.OpError
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, unix.ENOENT):
		// The kernel's words have Docker and Podman say that the container's
		// command was not found.
		return errors.New("there is no such socket")
	case errors.As(err, &op):
		return op.Err
	}
	return err
}
