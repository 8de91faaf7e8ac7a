package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choice is a flag that takes one of a few words; the first is the default.
type choice struct {
	value string
	words []string
}

func newChoice(words ...string) *choice { return &choice{words[0], words} }

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.words, "|") }

func (c *choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("must be %s", strings.Join(c.words, " or "))
	}
	c.value = word
	return nil
}

func (c *choice) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.words, cobra.ShellCompDirectiveNoFileComp
}

// addChoice adds a choice with its completion.
func addChoice(cmd *cobra.Command, c *choice, name, short, usage string) {
	cmd.Flags().VarP(c, name, short, usage)
	// The only error is an unknown flag, and it was added in the line above.
	_ = cmd.RegisterFlagCompletionFunc(name, c.complete)
}

// shortDefault keeps a long list out of the help, which names it in words.
func shortDefault(flags *pflag.FlagSet, name string) { flags.Lookup(name).DefValue = "[]" }

// addFormat gives a command that reports --json and -o json, which mean the
// same. The returned function reports whether JSON was asked for.
func addFormat(cmd *cobra.Command) (wantJSON func() bool) {
	format := newChoice("text", "json")
	addChoice(cmd, format, "output", "o", "format of the result")
	short := cmd.Flags().Bool("json", false, "the same as -o json")
	cmd.MarkFlagsMutuallyExclusive("output", "json")
	return func() bool { return *short || format.value == "json" }
}

// alone refuses a flag together with any other that the command has so far.
func alone(cmd *cobra.Command, name string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != name {
			cmd.MarkFlagsMutuallyExclusive(name, f.Name)
		}
	})
}
