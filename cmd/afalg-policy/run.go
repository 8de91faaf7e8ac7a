package main

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/decider"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/launch"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const runLong = `Run starts a command, and decides each use of AF_ALG that it and whatever it
starts make: this binary, this algorithm, nothing else. It takes no LSM and no
privilege, and closes every other way in, as the generated profiles do.

The command gets the rules that --grant names, and without one, none. Terminal,
signals, descriptors and exit status are the command's own; a signal that ends
it gives 128 + its number, a command that is not there 127.

Every decision about an algorithm, and every denial, is a line of JSON. Without
--log denials alone are told, on standard error; with --log FILE all of them, in
the file.

With --learn everything is allowed and nothing enforced, except for the types
that --deny-type names; what was used is written to a policy at the end, and
what was bound alone to a comment in it.

An ordinary user's command cannot gain privileges (no_new_privs). Nobody's
command has CAP_SYS_PTRACE, with which it could take the broker apart. If the
broker is killed, the command and all that it started are killed as well.`

func newRun(t *tui) *cobra.Command {
	var r runDetails
	cmd := &cobra.Command{
		Use:   "run POLICY [flags] -- COMMAND [ARGUMENT]...",
		Short: "Run a command, and decide each use of AF_ALG that it makes",
		Long:  runLong,
		Example: `  afalg-policy run policy.yaml --grant checksums -- kcapi-dgst -c sha256 --hex -i /etc/hosts
  afalg-policy run builtin:fips --grant fips-integrity-check --log /var/log/afalg.json -- sha512hmac /etc/hosts
  afalg-policy run builtin:baseline --learn learned.yaml --deny-type aead -- cryptsetup benchmark`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0:
				return usagef(`name the command behind "--"`)
			case dash == len(args):
				return usagef(`there is no command behind "--"`)
			default:
				return onePolicy(cmd, args[:dash])
			}
		},
		ValidArgsFunction: completePolicy,
	}
	f := cmd.Flags()
	f.StringArrayVar(&r.Grants, "grant", nil, "`RULE` of the policy that the command holds; may be repeated")
	accept := f.StringArray("accept", nil, "`NAME` of a wider gap that you take on; may be repeated")
	socketcall := newChoice(string(harden.SocketcallDeny), string(harden.SocketcallBroker))
	addChoice(cmd, socketcall, "socketcall", "", "what becomes of socketcall, by which 32-bit programs make sockets")
	r.Broker = addBrokerFlags(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		r.Policy, r.Grants = args[0], unique(r.Grants)
		return start(t, r, harden.RunOptions{Socketcall: harden.Socketcall(socketcall.value), Accept: unique(*accept)}, args[1:])
	}
	return cmd
}

// runDetails is what the broker of run has to know.
type runDetails struct {
	Policy string
	Digest string // of the plan: the file may change before the broker reads it
	Grants []string
	Broker *brokerFlags
}

// start checks all that can be checked before anything is started.
func start(t *tui, r runDetails, o harden.RunOptions, command []string) error {
	// Without its warnings: what is said here is said among the command's own.
	p, _, err := plan.Load(r.Policy, plan.ReadNamed)
	if err != nil {
		return err
	}
	if err := checkGrants(p, r.Grants); err != nil {
		return err
	}
	if err := r.Broker.check(); err != nil {
		return err
	}
	if err := launch.CheckInherited(afalg.Family); err != nil {
		return err
	}
	if err := decider.Supported(); err != nil {
		return hosterr.Errorf("%w", err)
	}
	if o.Arch, err = profile.ArchByName(runtime.GOARCH); err != nil {
		return hosterr.Errorf("make a filter for this machine: %w", err)
	}
	o.Grants = r.Grants
	filter, _, err := harden.RunFilter(p, o)
	if err != nil {
		return fmt.Errorf("make the filter: %w", err)
	}
	r.Digest = p.Digest
	var details bytes.Buffer
	if err := gob.NewEncoder(&details).Encode(r); err != nil {
		return err
	}
	r.Broker.warn(t)
	status, err := launch.Front(launch.Order{Command: command, Filter: filter, Details: details.Bytes()}, []string{"run-guard"})
	if err != nil {
		return err
	}
	return commandStatus(status)
}

// newRunGuard is the process that run starts, and that starts the broker; see
// package launch.
func newRunGuard() *cobra.Command {
	return &cobra.Command{
		Use:     "run-guard DESCRIPTOR...",
		Short:   "The guard of run's broker",
		Long:    "Run-guard is what run starts, to end what the command started when the broker ends.",
		Example: `  afalg-policy run-guard 64 65`,
		Hidden:  true,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			status, err := launch.Guard(args, []string{"run-broker"}, broker.MakePairs, broker.MakeSockets)
			if err != nil {
				return err
			}
			return commandStatus(status)
		},
	}
}

// newRunBroker is the process that starts the command; see package launch.
func newRunBroker(t *tui) *cobra.Command {
	return &cobra.Command{
		Use:     "run-broker DESCRIPTOR...",
		Short:   "The broker of run",
		Long:    "Run-broker is what the guard of run starts, to decide about what the command does.",
		Example: `  afalg-policy run-broker 64 65 66`,
		Hidden:  true,
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runBroker(t, args) },
	}
}

func runBroker(t *tui, args []string) error {
	runtime.GOMAXPROCS(broker.Processors)
	a, err := launch.Attach(args)
	if err != nil {
		return err
	}
	var r runDetails
	if err := gob.NewDecoder(bytes.NewReader(a.Order.Details)).Decode(&r); err != nil || len(a.Helpers) != 2 {
		return usagef("this command is started by run only")
	}
	p, err := r.plan()
	if err != nil {
		return err
	}
	d, err := r.Broker.open(t, p, decider.Options{
		Pairs: broker.NewPairs(a.Helpers[0]), Sockets: broker.NewSockets(a.Helpers[1]), Terse: true, Digests: true, Alone: true,
	})
	if err != nil {
		return err
	}
	defer d.Close()
	return launch.Broker(a, launch.Service{
		Serve: func(l *notify.Listener) error { return d.Serve(l, r.Grants) },
		Ended: d.save,
	})
}

// plan reads the policy again, and refuses another one than was checked.
func (r runDetails) plan() (*plan.Plan, error) {
	p, _, err := plan.Load(r.Policy, plan.ReadNamed)
	if err == nil && p.Digest != r.Digest {
		err = fmt.Errorf("policy %s changed while it was read: run again", r.Policy)
	}
	return p, err
}
