package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/lsm/hold"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

const lsmLoadLong = `Load puts a policy in force in the kernel, in place of the one that was, for
every process of this host. It is all or nothing: after the load an executable
that no rule lists must be denied, and a listed one allowed. Otherwise what was
in force before is again.

With --audit everything is allowed, and what would be denied is recorded: see
"afalg-policy lsm learn".

What the kernel half cannot express of the policy is a gap on standard error. A
rule whose executable is not here holds for nobody until "lsm refresh". A wider
gap is an error, and nothing is loaded, unless --accept names it. A host may be
without the gap: a boot with another kernel must not fail for that.

Sockets from before the load are listed with their holders. A parent is refused
at bind and at accept. An operation socket works on, and only its holder's end
closes it: --end-holders kills those processes.

Exit status 0 means that the policy is loaded, 3 that this host cannot.`

func newLSMLoad(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load POLICY",
		Short: "Put a policy in force in the kernel",
		Long:  lsmLoadLong,
		Example: `  afalg-policy lsm load policy.yaml --audit
  afalg-policy lsm load policy.yaml
  afalg-policy lsm load builtin:fips --end-holders --json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	f := cmd.Flags()
	audit := f.Bool("audit", false, "deny nothing, and record what would be denied")
	accept := f.StringArray("accept", nil, "`NAME` of a wider gap that you take on; may be repeated")
	end := f.Bool("end-holders", false, "kill who holds an operation socket from before the load")
	cmd.MarkFlagsMutuallyExclusive("audit", "end-holders")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := lsm.Options{Audit: *audit, Accept: unique(*accept), Policy: args[0], Tool: toolName()}
		if !strings.HasPrefix(args[0], policy.BuiltinPrefix) {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return hosterr.Errorf("the path of %s: %w", args[0], err)
			}
			o.Policy = path
		}
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		if !wantJSON() {
			showBreaks(t, p)
		}
		_, gaps, err := lsm.Load(cmd.Context(), p, o)
		if err := hold.After(err); err != nil {
			return refusedLoad(t, o.Policy, p, gaps, err, wantJSON())
		}
		if err := lsm.AwaitRelease(cmd.Context()); err != nil {
			return err
		}
		var ended []lsm.Socket
		if *end {
			if ended, err = lsm.EndHolders(); err != nil {
				return err
			}
		}
		return showLoad(t, "lsm load", p, ended, wantJSON())
	}
	return cmd
}

// refusedLoad says why nothing was loaded.
func refusedLoad(t *tui, name string, p *plan.Plan, gaps []plan.Gap, err error, asJSON bool) error {
	if !asJSON {
		showGaps(t, plan.Untold(gaps, err))
		return err
	}
	if exitStatus(err) > exitNo {
		return err
	}
	return errors.Join(t.JSON(report.NewLoadRefused("lsm load", name, p, gaps, err)), err)
}

// showLoad reports what is in force, as the kernel says.
func showLoad(t *tui, command string, p *plan.Plan, ended []lsm.Socket, asJSON bool) error {
	s, err := lsm.ReadStatus()
	if err != nil {
		return err
	}
	return showKernelHalf(t, report.NewLoad(command, p, s, ended), asJSON)
}

const lsmRefreshLong = `Refresh looks up the users and the executables of the loaded policy again. After
an upgrade, an executable is another file: its rules hold for nobody until then.

The policy must be the one that is loaded: a file that means something else by
now is refused, and has to be loaded. The mode stays.

With --quiet nothing is said where all went well, and where no policy is loaded
that is well: a trigger of the package manager calls it so.`

func newLSMRefresh(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Look the executables of the loaded policy up again",
		Long:  lsmRefreshLong,
		Example: `  afalg-policy lsm refresh
  afalg-policy lsm refresh --quiet`,
		Args: cobra.NoArgs,
	}
	quiet := cmd.Flags().Bool("quiet", false, "say nothing if all went well, or nothing is loaded")
	wantJSON := addFormat(cmd)
	for _, format := range []string{"json", "output"} {
		cmd.MarkFlagsMutuallyExclusive("quiet", format)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := lsm.OnHost(); err != nil {
			return err
		}
		before, err := lsm.ReadState()
		if errors.Is(err, lsm.ErrNotLoaded) && *quiet {
			return nil
		}
		if err != nil {
			return err
		}
		p, _, err := plan.Load(before.Policy, plan.ReadNamed) // its warnings were told by the load
		if err != nil {
			return err
		}
		if _, _, err := lsm.Refresh(cmd.Context(), p, toolName()); err != nil || *quiet {
			return err
		}
		return showLoad(t, "lsm refresh", p, nil, wantJSON())
	}
	return cmd
}
