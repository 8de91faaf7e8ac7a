package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/launch"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// The exit statuses, explained in the help of the root command.
const (
	exitYes   = 0
	exitNo    = 1
	exitUsage = 2
	exitHost  = 3
)

// errNo ends a command whose answer, already printed, is no.
var errNo = errors.New("no")

// commandStatus ends run with the exit status of the command that it ran.
type commandStatus int

func (s commandStatus) Error() string { return fmt.Sprintf("the command's exit status was %d", int(s)) }

// usageError is an error of the command line itself.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// unusableError is an input that the command line names and that cannot be
// used as what it is.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return e.err.Error() }
func (e *unusableError) Unwrap() error { return e.err }

// written gives an error of an output its exit status.
func written(err error) error {
	var taken *output.KindError
	var directory *output.DirectoryError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &taken):
		return usagef("%w; name another path", err)
	case errors.As(err, &directory):
		return usagef("%w", err)
	}
	return hosterr.Errorf("%w", err)
}

// exitStatus maps an error to the status. An error that nobody classified is
// a no: it must never look like a yes.
func exitStatus(err error) int {
	var usage *usageError
	var unreadable *plan.ReadError
	var unusable *unusableError
	var host *hosterr.Error
	var unstarted *launch.CommandError
	var command commandStatus
	switch {
	case err == nil:
		return exitYes
	case errors.As(err, &command):
		return int(command)
	case errors.As(err, &unstarted):
		return unstarted.Status
	case errors.As(err, &usage), errors.As(err, &unreadable), errors.As(err, &unusable):
		return exitUsage
	case errors.As(err, &host):
		return exitHost
	default:
		return exitNo
	}
}

// asGroup makes a command that only has subcommands refuse to run by itself.
// Cobra would print help and exit with 0, also for a misspelt subcommand.
func asGroup(cmd *cobra.Command, noun string) {
	cmd.SuggestionsMinimumDistance = 2 // edits; what cobra takes for itself
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("name a %s: %s", noun, strings.Join(subcommands(cmd), ", "))
		}
		return unknown(cmd, noun, args[0])
	}
}

func unknown(cmd *cobra.Command, noun, name string) error {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("unknown %s %q; did you mean %s?", noun, name, strings.Join(near, " or "))
	}
	return usagef("unknown %s %q; there are %s", noun, name, strings.Join(subcommands(cmd), ", "))
}

func subcommands(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}
