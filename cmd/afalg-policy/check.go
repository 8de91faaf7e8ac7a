package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

func newCheck(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check POLICY",
		Short: "Validate a policy with everything that it includes",
		Long: `Check reads a policy and all that it includes, and reports every error at once,
each as "file:line:col: message". Warnings do not make a policy invalid.

With -o json it prints the resolved plan, with includes merged, defaults filled
in and everything sorted, or the errors. The digest depends on what the policy
means, and not on comments, order, file names or includes.

Exit status 1 means that the policy is invalid, 2 that it cannot be read.`,
		Example: `  afalg-policy check policy.yaml
  afalg-policy check builtin:desktop -o json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		p, err := loadPlan(t, args[0])
		if wantJSON() {
			return showCheck(t, p, err)
		}
		if err != nil {
			return err
		}
		report.NewCheck(p, nil).Text(&t.Printer)
		return nil
	}
	return cmd
}

// showCheck writes the report. A policy that cannot be read has none.
func showCheck(t *tui, p *plan.Plan, err error) error {
	var invalid policy.ErrorList
	if err != nil && !errors.As(err, &invalid) {
		return err
	}
	return errors.Join(t.JSON(report.NewCheck(p, invalid)), err)
}
