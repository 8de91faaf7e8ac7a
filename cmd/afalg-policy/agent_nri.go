package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/admit"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/nri"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// nriFlags are those of an agent that is a plugin of the container runtime.
type nriFlags struct {
	socket      string // "" if it is none
	decisionLog string
}

func addNRIFlags(cmd *cobra.Command) *nriFlags {
	n := &nriFlags{}
	f := cmd.Flags()
	f.StringVar(&n.socket, "nri", "", "be a plugin of containerd 2.3 or later, which asks about each container of a pod at `SOCKET`; "+nri.Socket+" if none is named")
	f.Lookup("nri").NoOptDefVal = nri.Socket
	f.StringVar(&n.decisionLog, "decision-log", "", "with --nri, `FILE` to append a line of JSON to for each container")
	return n
}

func (n *nriFlags) check() error {
	switch {
	case n.socket != "" && !filepath.IsAbs(n.socket):
		return usagef("--nri=%s: it must be an absolute path", n.socket)
	case n.socket == "" && n.decisionLog != "":
		return usagef("--decision-log goes with --nri: without it the agent does not decide whether containers start")
	}
	return nil
}

// plugin is one with what it writes to. A nil plugin does nothing.
type plugin struct {
	*nri.Plugin
	close []func()
}

// open makes the plugin that the flags ask for.
func (n *nriFlags) open(t *tui, d *deciding, name string, current func() *plan.Plan, ahead func()) (*plugin, error) {
	if n.socket == "" {
		return nil, nil
	}
	o, err := proofOptions("")
	if err != nil {
		return nil, err
	}
	if o.Memo == nil {
		return nil, hosterr.Errorf("--nri: there is no place to keep proofs, and a plugin answers by what was proved: only root may be able to write to /var/cache/afalg-policy")
	}
	log, err := admit.OpenLog(n.decisionLog)
	if err != nil {
		return nil, hosterr.Errorf("the decision log: %w", err)
	}
	options := nri.Options{
		Socket: n.socket, Plan: current, OCI: o, Log: log, Bases: kept.OpenBases(), Given: kept.OpenGiven(), Ahead: ahead,
		Prove: func(ctx context.Context, f nri.Proof) error { return proveElsewhere(ctx, name, f) },
		Note:  func(text string) { t.Notef("afalg-policy: %s", text) },
		State: keepState(t),
	}
	if d.Metrics != nil {
		options.Told = d.Metrics.NRI(nri.Verdicts())
	}
	return &plugin{nri.New(options), []func(){log.Close, options.Bases.Close, options.Given.Close}}, nil
}

// begin runs the plugin, and returns what ends it.
func (p *plugin) begin(agentSocket string) (end func()) {
	if p == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Run(ctx, agentSocket)
	}()
	return func() {
		cancel()
		<-ended
		for _, c := range p.close {
			c()
		}
	}
}

// alive is asked by the watchdog.
func (p *plugin) alive() error {
	if p == nil {
		return nil
	}
	return p.Alive()
}

// proofOptions are those by which containers are hardened, in the agent and in the
// process that proves for it.
func proofOptions(agentSocket string) (oci.Options, error) {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return oci.Options{}, hosterr.Errorf("%w", err)
	}
	o := oci.Options{Tool: toolName(), Arch: arch, Agent: agentSocket}
	if memo := kept.OpenProofs(o.Tool); memo != nil {
		o.Memo = memo
	}
	return o, nil
}

// nriState is where status finds what became of the connection.
func nriState() string { return filepath.Join(kept.StateDir(), nri.StateName) }

func keepState(t *tui) func(nri.State) {
	failed := false
	return func(s nri.State) {
		text, err := json.Marshal(s)
		if err == nil {
			err = renameio.WriteFile(nriState(), append(text, '\n'), 0o644)
		}
		if err != nil && !failed {
			t.Notef("afalg-policy: NRI: status will not know: %v", err)
		}
		failed = err != nil
	}
}

const proveName = "prove-one"

// proveElsewhere has a profile proved in a process of its own: a compiler of filters is
// nothing to have in one that answers calls.
func proveElsewhere(ctx context.Context, name string, f nri.Proof) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", proveName, "--agent", f.Agent, name)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin = bytes.NewReader(text)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return errors.New(strings.TrimPrefix(text, "afalg-policy: "))
		}
		return fmt.Errorf("the process that proves its seccomp profile: %w", err)
	}
	return nil
}

// newProveProfile is the process that an agent starts for a profile that nobody has
// proved yet.
func newProveProfile(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:     proveName + " POLICY",
		Short:   "Prove the profile of a container",
		Long:    "Prove-one is what agent --nri starts for a profile that nobody has proved yet.",
		Example: `  afalg-policy prove-one /etc/afalg-policy/policy.yaml`,
		Args:    onePolicy,
		Hidden:  true,
	}
	agentSocket := cmd.Flags().String("agent", defaultAgent, "`SOCKET` of the agent, for containers with grants")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		endsSoon()
		text, err := readStdin(cmd.InOrStdin(), "the profile of a container")
		if err != nil {
			return err
		}
		var f nri.Proof
		if err := json.Unmarshal(text, &f); err != nil {
			return usagef("the profile of a container: %w", err)
		}
		o, err := proofOptions(*agentSocket)
		if err != nil {
			return err
		}
		return admit.InTime(func() error {
			if o.Plan, err = agentPlan(t, args[0]); err != nil {
				return err
			}
			return f.Do(o)
		})
	}
	return cmd
}

// keep has the policy kept as it is in force, for the processes that prove under it
// while the file has a slip.
func (n *nriFlags) keep(t *tui, name string, p *plan.Plan) {
	if n.socket == "" {
		return
	}
	if err := kept.KeepPolicy(name, p); err != nil {
		t.Notef("afalg-policy: a slip in the policy will keep containers with new profiles from starting: %v", err)
	}
}
