package main

import (
	"bytes"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// The pages are made here and not by the program, which would otherwise start
// with what renders them, at every start of a container.

// manDate stands in every page, so that they are the same on every day. It is
// the month of the last change to the command line.
var manDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// manPages renders the page of each command that help shows.
func manPages(cmd *cobra.Command) ([]gen.File, error) {
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &manDate, Source: "afalg-policy", Manual: "afalg-policy"}
	cmd.Long = manText(cmd.Long)
	cmd.DisableAutoGenTag = true // it would end with the day on which it was made
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
