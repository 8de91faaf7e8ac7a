package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/agent"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/gen"
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

With --learn everything is allowed and nothing enforced, but for the types that
--deny-type names; what was used is written to a policy at the end.

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
  afalg-policy generate seccomp builtin:fips --broker /run/afalg-policy/agent.sock --grant fips-integrity-check -o seccomp.json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	listen := cmd.Flags().String("listen", "", "`SOCKET` where runtimes connect; from systemd if it is left out")
	flags := addBrokerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("listen") {
			if err := gen.CheckBroker(*listen); err != nil {
				return usagef("--listen: %w", err)
			}
		}
		if err := flags.check(); err != nil {
			return err
		}
		return agentError(runAgent(t, args[0], *listen, flags))
	}
	return cmd
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

// runAgent serves until it is stopped.
func runAgent(t *tui, name, socket string, flags *brokerFlags) (err error) {
	p, err := loadPlan(t, name)
	if err != nil {
		return err
	}
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
	e, err := flags.open(t, p, engineOptions{pairs: helper.Pairs, sockets: helper.Sockets})
	if err != nil {
		return err
	}
	defer e.close()
	o := agent.Options{
		Socket: socket, Helper: helper, Broker: e.broker,
		Plan: e.granted, Failed: e.observer.Failed,
		Reload: func() error { return e.reload(name) },
		Note:   func(text string) { t.notef("afalg-policy: %s", text) },
	}
	if e.metrics != nil {
		o.Listeners = e.metrics.Listeners
	}
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	// What was learned is saved whatever ends the agent.
	return errors.Join(a.Run(), e.save())
}

// reload takes the policy as it is now, if it is valid.
func (e *engine) reload(name string) error {
	p, err := loadPlan(e.t, name)
	if err != nil {
		return err
	}
	e.setPlan(p)
	return nil
}

func agentError(err error) error {
	var host *agent.HostError
	switch {
	case errors.Is(err, agent.ErrNoSocket):
		return usagef("--listen is missing: %w", err)
	case errors.As(err, &host):
		return hostError("%w", err)
	}
	return err
}
