package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Needs is what a policy grants to containers that takes an agent.
type Needs struct {
	Rules   bool // the agent decides by them
	Sockets bool // of 32-bit programs; the agent makes them
}

// installAgent is the command that sets the agent up.
const installAgent = `"afalg-policy install agent"`

// agent reports whether containers need an agent.
func (o *Options) agent() bool { return o.Needs.Rules || o.sockets() }

// sockets reports whether the agent makes sockets of 32-bit programs.
func (o *Options) sockets() bool { return o.Needs.Sockets || o.Socketcall == socketcallBroker }

// agentNotes names what is missing for containers to start, and what is open on
// purpose.
func (o *Options) agentNotes(h *host.Host) []string {
	if o.Socketcall == socketcallKeep {
		return append(o.missingAgent(h), "wider: compat-socketcall: with --socketcall keep, 32-bit programs in every container reach AF_ALG; an LSM rule has to stand behind it, and status does not call a container closed")
	}
	return o.missingAgent(h)
}

func (o *Options) missingAgent(h *host.Host) []string {
	setUp := slices.ContainsFunc(unitDirs, func(dir string) bool { return h.Exists(path.Join(dir, agentSocket)) })
	switch {
	case o.agent() && !setUp:
		who := "the containers to which the policy grants something"
		if o.Socketcall == socketcallBroker {
			who = "all containers, with --socketcall broker,"
		}
		return []string{fmt.Sprintf("%s do not start without the agent, and its units are not here: run %s%s", who, installAgent, o.again())}
	case o.sockets() && !h.Exists(agentSocketcall):
		return []string{fmt.Sprintf("the unit of the agent may lack the privileges to make sockets of 32-bit programs: run %s%s again", installAgent, o.again())}
	}
	return nil
}

// again returns the options that the agent's installation has to share.
func (o *Options) again() string {
	if o.Socketcall == socketcallBroker {
		return " with --socketcall broker"
	}
	return ""
}

// askAgent returns why a container would not find the agent that a record
// names.
func askAgent(ctx context.Context, r *host.Record) error {
	socket := r.Options["agent"]
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing listens on %s: run %s", socket, installAgent)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("nothing listens on %s any more: run \"systemctl restart %s\"", socket, agentSocket)
	}
	return err
}
