package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// tui is the streams of a command.
type tui struct {
	term.Printer
	out *bufio.Writer // of the printer; run flushes it, and errors of the stream surface then
}

func newTUI(stdout, stderr io.Writer) *tui {
	t := &tui{term.For(stdout, stderr), bufio.NewWriter(stdout)}
	t.Out = t.out
	return t
}

// answer prints a report as text or as JSON. It ends the command with the error of
// a no unless the report says yes.
func (t *tui) answer(r interface{ Text(*term.Printer) }, asJSON, yes bool) error {
	if !asJSON {
		r.Text(&t.Printer)
	} else if err := t.JSON(r); err != nil {
		return err
	}
	if !yes {
		return errNo
	}
	return nil
}

// report prints an error and returns the exit status.
func (t *tui) report(cmd *cobra.Command, err error) int {
	status := exitStatus(err)
	var command commandStatus
	if err == nil || errors.Is(err, errNo) || errors.As(err, &command) {
		return status
	}
	var invalid policy.ErrorList
	if errors.As(err, &invalid) {
		// Editors find the places only at the beginning of a line.
		t.Notef("%v", err)
		err = fmt.Errorf("the policy is invalid: %s", term.Count(len(invalid), "error"))
	}
	t.Notef("afalg-policy: %v", err)
	var usage *usageError
	if errors.As(err, &usage) {
		t.Notef("Run %q for help.", cmd.CommandPath()+" --help")
	}
	return status
}
