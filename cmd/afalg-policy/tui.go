package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// tui holds the rules of output. Results go to out and everything else to
// err; tables and colour appear where out is a terminal; what comes from files
// cannot move the cursor.
type tui struct {
	out    *bufio.Writer
	err    io.Writer
	tables bool
	colour bool
}

func newTUI(stdout, stderr io.Writer) *tui {
	tty := isTerminal(stdout)
	return &tui{
		out:    bufio.NewWriter(stdout),
		err:    stderr,
		tables: tty,
		colour: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printf writes a line of the result. Errors of the stream surface when run
// flushes it.
func (t *tui) printf(format string, args ...any) {
	fmt.Fprintln(t.out, printable(fmt.Sprintf(format, args...)))
}

// notef writes a line that is not the result.
func (t *tui) notef(format string, args ...any) {
	fmt.Fprintln(t.err, printable(fmt.Sprintf(format, args...)))
}

// note is notef for a text.
func (t *tui) note(text string) { t.notef("%s", text) }

// json writes a value as the result.
func (t *tui) json(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows: drawn on a terminal, separated by tabs elsewhere, where
// the header is left out.
func (t *tui) table(header []string, rows [][]string) {
	if !t.tables {
		for _, row := range rows {
			t.printf("%s", strings.Join(row, "\t"))
		}
		return
	}
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.AppendHeader(cells(header))
	for _, row := range rows {
		w.AppendRow(cells(row))
	}
	fmt.Fprintln(t.out, w.Render())
}

func cells(texts []string) table.Row {
	var row table.Row
	for _, text := range texts {
		row = append(row, printable(text))
	}
	return row
}

// verdict colours a word: green for yes, red for no.
func (t *tui) verdict(yes bool, word string) string {
	if !t.colour {
		return word
	}
	if yes {
		return "\x1b[32m" + word + "\x1b[0m"
	}
	return "\x1b[31m" + word + "\x1b[0m"
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
		t.notef("%v", err)
		err = fmt.Errorf("the policy is invalid: %s", count(len(invalid), "error"))
	}
	t.notef("afalg-policy: %v", err)
	var usage *usageError
	if errors.As(err, &usage) {
		t.notef("Run %q for help.", cmd.CommandPath()+" --help")
	}
	return status
}

// printable replaces control characters, so that text from a policy cannot
// steer the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
