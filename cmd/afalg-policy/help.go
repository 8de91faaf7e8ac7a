package main

import (
	"bytes"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newHelp replaces cobra's own, which exits with 0 for an unknown topic.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show the help of a command",
		Long:    `Help shows the same as COMMAND --help.`,
		Example: `  afalg-policy help generate seccomp`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 {
				return usagef("no help for %q", strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// manDate stands in every page, so that they are the same on every day. It is
// the month of the last change to the command line.
var manDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages",
		Long:    `Man writes one manual page for each command into a directory, for packagers.`,
		Example: `  afalg-policy man share/man/man1`,
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			pages, err := manPages(cmd.Root())
			if err != nil {
				return err
			}
			return writeDirectory(args[0], pages)
		},
	}
}

// manPages renders the page of each command that help shows.
func manPages(cmd *cobra.Command) ([]gen.File, error) {
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &manDate, Source: "afalg-policy", Manual: "afalg-policy"}
	cmd.Long = manText(cmd.Long)
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return nil, err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	pages := []gen.File{{Path: name, Data: page.Bytes()}}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "help" {
			continue
		}
		more, err := manPages(sub)
		if err != nil {
			return nil, err
		}
		pages = append(pages, more...)
	}
	return pages, nil
}

// manText sets the lists of a help text, which are indented by two spaces,
// apart as Markdown does it; their columns would run together.
func manText(long string) string {
	var text strings.Builder
	inList := false
	for line := range strings.Lines(long) {
		isList := strings.HasPrefix(line, "  ")
		if isList != inList && line != "\n" {
			text.WriteString("\n")
			inList = isList
		}
		if isList {
			text.WriteString("  ")
		}
		text.WriteString(line)
	}
	return text.String()
}
