package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const applyLong = `Apply puts a policy in the place of the one that this host's containers start
under. It reads FILE, with everything that it includes, as it will be read
there; shows what changes with its meaning; replaces the policy in one step;
makes the profiles of "install kubernetes" anew; and has the agent read it.

Changes are shown as requests and containers, one a line:

  allowed, denied   what a subject may use from now on, and no longer
  granted, taken    what a container holds, when it is started again
  changed           what is closed besides, and how

An invalid policy replaces nothing, and exit status 1 says so. With --dry-run
nothing is replaced. FILE may be the policy itself, after it was edited in
place: the difference is then to what is in force.

The last good state of a policy is kept. While the file cannot be read, because
of a slip of the editor, containers start under that, and the log says so.`

func newApply(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Replace the policy of containers, and show what changes",
		Long:  applyLong,
		Example: `  afalg-policy apply new.yaml --dry-run
  afalg-policy apply new.yaml
  afalg-policy apply new.yaml --policy /etc/afalg-policy/policy.yaml --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one file with the new policy")
			}
			return nil
		},
	}
	live := cmd.Flags().String("policy", defaultPolicy, "`PATH` of the policy to replace")
	dryRun := cmd.Flags().Bool("dry-run", false, "replace nothing, and show what would change")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return applyPolicy(cmd.Context(), t, args[0], *live, *dryRun, wantJSON())
	}
	return cmd
}

func applyPolicy(ctx context.Context, t *tui, file, live string, dryRun, asJSON bool) error {
	done, err := deploy.Apply(ctx, deploy.Change{
		File: file, Policy: live, DryRun: dryRun,
		Warn: func(w policy.Warning) { t.Notef("warning: %v", w) },
		Note: t.Note, Tool: toolName(),
	})
	if done != nil && err != nil && asJSON {
		return errors.Join(t.JSON(done), err)
	}
	if err != nil {
		return installError(err)
	}
	if asJSON {
		err = t.JSON(done)
	} else {
		done.Text(&t.Printer)
	}
	if err != nil {
		return err
	}
	notes, err := done.Following()
	for _, note := range notes {
		t.Notef("note: %s", note)
	}
	return err
}
