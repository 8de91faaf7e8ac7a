package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/agent"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/decider"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/keeper"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

const agentLong = `Agent decides for many containers under one policy. It listens on SOCKET, where
runc, crun and podman hand over the notifications of each container whose
profile was made with "generate seccomp --broker SOCKET" or "generate oci
--broker SOCKET". A container gets the rules that its profile grants, and
without one, none. Grants count only from a runtime of root, or of the user of
the agent.

Every decision about an algorithm, and every denial, is a line of JSON, on
standard error or in the file of --log.

  SIGHUP             reads the policy again, for all containers; an invalid one
                     is refused, and the old one kept
  SIGTERM, SIGINT    stop

As a service of systemd (dist/afalg-policy-agent.service) it tells when it is
ready and that it lives, takes its socket from a socket unit, where --listen may
be left out, and keeps the containers in the file descriptor store: it can be
restarted, or killed, and loses none. Without the store, what is trapped fails
with ENOSYS when the agent ends.

With --hand-over SOCKET it needs no service manager, as in a pod. The process
becomes a keeper: it starts the agent proper, keeps what that would keep with
systemd, and starts it again when it ends. The next process with the same SOCKET
takes everything over, and the first one stands by: it exits when it is told to,
and not before, and if the other one is told to end first, it gets everything
back. A keeper that is killed loses the listeners of running containers.

Where a platform is installed, the agent has the platforms' default profiles
proved when it starts, and when it reads the policy again, so that no container
waits for that.

With --nri it is a plugin of containerd 2.3 or later besides. containerd asks it
about each container of a pod before it makes it, and the agent hardens the
container's profile, gives it what the policy grants, or refuses it. It stays
connected when containerd is restarted. A runtime that does not show profiles to
plugins is refused, and the reason logged; the agent goes on without it.

With --learn everything is allowed and nothing enforced, except for the types
that --deny-type names; what was used is written to a policy at the end, and
what was bound alone to a comment in it.

Exit status 0 means that it was stopped, 1 that the policy is invalid, and 3
that this host has no notifications, the socket cannot be made, or the process
that makes sockets for the agent has ended.`

func newAgent(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent POLICY",
		Short: "Decide each use of AF_ALG in containers, for their runtimes",
		Long:  agentLong,
		Example: `  afalg-policy agent /etc/afalg-policy/policy.yaml --listen /run/afalg-policy/agent.sock
  afalg-policy agent builtin:fips --listen /run/afalg-policy/agent.sock --log /var/log/afalg.json --metrics 127.0.0.1:9138
  afalg-policy agent builtin:fips --listen /run/afalg-policy/agent.sock --hand-over /run/afalg-policy/hand-over.sock
  afalg-policy agent /etc/afalg-policy/policy.yaml --listen /run/afalg-policy/agent.sock --nri
  afalg-policy generate seccomp builtin:fips --broker /run/afalg-policy/agent.sock --grant fips-integrity-check -o seccomp.json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	listen := cmd.Flags().String("listen", "", "`SOCKET` where runtimes connect; from systemd if it is left out")
	handOver := cmd.Flags().String("hand-over", "", "`SOCKET` where the next agent takes over; where no service manager keeps descriptors")
	flags := addBrokerFlags(cmd)
	plugin := addNRIFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("listen") {
			if err := harden.CheckBroker(*listen); err != nil {
				return usagef("--listen: %w", err)
			}
		}
		if err := errors.Join(flags.check(), plugin.check()); err != nil {
			return err
		}
		if cmd.Flags().Changed("hand-over") && !keeper.Child() {
			return keepAgent(t, args[0], *listen, *handOver)
		}
		return agentError(runAgent(t, args[0], *listen, flags, plugin))
	}
	return cmd
}

// keepAgent starts this command again, as the agent of a keeper. What is wrong with
// the policy is told before anybody is asked to hand over.
func keepAgent(t *tui, policy, listen, handOver string) error {
	switch {
	case listen == "":
		return usagef("--hand-over goes with --listen: no unit of systemd has the socket")
	case os.Getenv("NOTIFY_SOCKET") != "":
		return usagef("--hand-over is for where no service manager keeps descriptors, and NOTIFY_SOCKET says that there is one")
	}
	for flag, path := range map[string]string{"--listen": listen, "--hand-over": handOver} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return usagef("%s %s: name a socket by its absolute path", flag, path)
		}
	}
	if listen == handOver {
		return usagef("--hand-over %s: runtimes connect there; name another socket", handOver)
	}
	if _, err := agentPlan(t, policy); err != nil {
		return err
	}
	if err := agent.Prepare(); err != nil {
		return err
	}
	err := keeper.Run(keeper.Options{
		Listen: listen, HandOver: handOver, Args: os.Args[1:],
		Note:   func(text string) { t.Notef("afalg-policy: %s", text) },
		Failed: func(what string, err error) { t.Notef("afalg-policy: %s: %s", what, printable.Line(err.Error())) },
	})
	var ended *keeper.EndedError
	if errors.As(err, &ended) && ended.Status == exitNo {
		return err
	}
	if err != nil {
		return hosterr.Errorf("%w", err)
	}
	return nil
}

// newAgentHelper is the process that agent starts: sockets lead back to who
// made them.
func newAgentHelper() *cobra.Command {
	return &cobra.Command{
		Use:     "agent-helper",
		Short:   "Make sockets for agent",
		Long:    "Agent-helper is what agent starts, to make the sockets that it hands out.",
		Example: `  afalg-policy agent-helper`,
		Args:    cobra.NoArgs,
		Hidden:  true,
		RunE: func(*cobra.Command, []string) error {
			if err := agent.Help(); err != nil {
				return usagef("%w", err)
			}
			return nil
		},
	}
}

const aheadName = "prove-ahead"

// newProveAhead is the process that agent starts: a compiler of filters is
// nothing to have in one that answers calls.
func newProveAhead(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:     aheadName + " POLICY",
		Short:   "Prove the default profiles of installed platforms",
		Long:    "Prove-ahead is what agent starts, so that no container waits for the proof of a default profile.",
		Example: `  afalg-policy prove-ahead /etc/afalg-policy/policy.yaml`,
		Args:    onePolicy,
		Hidden:  true,
	}
	seen := cmd.Flags().Bool("nri", false, "prove those under which containers of pods came, too")
	socket := cmd.Flags().String("agent", defaultAgent, "`SOCKET` of the agent, for containers with grants")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		const lowest = 19
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowest) // it is in nobody's way then; without, it is sooner done
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return hosterr.Errorf("find this program: %w", err)
		}
		profiles, err := install.Profiles()
		if err != nil {
			return hosterr.Errorf("%w", err)
		}
		ahead := kept.Ahead{
			Plan: p, Tool: toolName(), Program: self, Agent: *socket, Socketcall: harden.SocketcallDeny,
			Hardened: profiles, Seen: *seen,
		}
		return ahead.Prove()
	}
	return cmd
}

// runAgent serves until it is stopped.
func runAgent(t *tui, name, socket string, flags *brokerFlags, asked *nriFlags) (err error) {
	p, err := agentPlan(t, name)
	if err != nil {
		return err
	}
	current := &atomic.Pointer[plan.Plan]{}
	current.Store(p)
	runtime.GOMAXPROCS(broker.Processors)
	if err := agent.Prepare(); err != nil {
		return err
	}
	flags.warn(t)
	helper, err := agent.StartHelper("agent-helper")
	if err != nil {
		return err
	}
	defer helper.Close()
	d, err := flags.open(t, p, decider.Options{Pairs: helper.Pairs, Sockets: helper.Sockets})
	if err != nil {
		return err
	}
	defer d.Close()
	note := func(text string) { t.Notef("afalg-policy: %s", text) }
	proofs := &kept.Process{Args: []string{aheadName, name}, Wanted: install.Any, Note: note}
	if asked.socket != "" {
		proofs.Args = append(proofs.Args, "--nri")
		proofs.Wanted = func() bool { return true }
	}
	o := agent.Options{
		Socket: socket, Helper: helper, Broker: d.Broker,
		Plan: d.Granted, Failed: d.Failed,
		Reload: func() error {
			p, err := loadPlan(t, name)
			if err == nil {
				d.SetPlan(p)
				current.Store(p)
				asked.keep(t, name, p)
				proofs.Begin()
			}
			return err
		},
		Note: note,
	}
	if d.Metrics != nil {
		o.Listeners = d.Metrics.Listeners
	}
	plugin, err := asked.open(t, d, name, current.Load, proofs.Begin)
	if err != nil {
		return err
	}
	o.Alive = plugin.alive
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	asked.keep(t, name, p)
	proofs.Args = append(proofs.Args, "--agent", a.Path())
	proofs.Begin()
	defer proofs.End()
	defer plugin.begin(a.Path())()
	// The learned policy is saved, whatever ends the agent.
	return errors.Join(a.Run(), d.save())
}

// agentPlan reads the policy as containers are started under it, so that an
// agent can be started again while the file has a slip.
func agentPlan(t *tui, name string) (*plan.Plan, error) {
	p, err := loadPlan(t, name)
	if err == nil {
		return p, nil
	}
	return kept.Fallback(name, err, t.Note)
}

func agentError(err error) error {
	if errors.Is(err, agent.ErrNoSocket) {
		return usagef("--listen is missing: %w", err)
	}
	return err
}
