package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestHelpFits: help is read on a terminal of 80 columns. Examples are there to
// be copied whole.
func TestHelpFits(t *testing.T) {
	walk(newRoot(newTUI(&bytes.Buffer{}, &bytes.Buffer{})), func(cmd *cobra.Command) {
		if strings.HasPrefix(cmd.CommandPath(), "afalg-policy completion") || cmd.Hidden {
			return // cobra's own, and what nobody calls
		}
		cmd.InitDefaultHelpFlag()
		for line := range strings.Lines(cmd.Long + "\n" + cmd.UsageString()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > 80 && !strings.Contains(cmd.Example, line) {
				t.Errorf("help of %s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
	})
}
