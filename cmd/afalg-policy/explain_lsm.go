package main

import (
	"errors"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// explainKernelHalf prints the gaps that a load of a policy would have.
func explainKernelHalf(t *tui, name string, asJSON bool) error {
	p, err := loadPlan(t, name)
	if err != nil {
		return err
	}
	gaps, unasked, err := lsm.Gaps(p)
	r := report.NewKernelGaps(p, gaps, unasked, err)
	if asJSON {
		return errors.Join(t.JSON(r), err)
	}
	r.Text(&t.Printer)
	if err != nil {
		return errNo
	}
	return nil
}
