package term

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Table writes rows: drawn on a terminal, no wider than that; separated by
// tabs elsewhere, where the header is left out.
func (p *Printer) Table(header []string, rows [][]string) {
	if !p.Tables {
		for _, row := range rows {
			p.Printf("%s", strings.Join(lines(row), "\t"))
		}
		return
	}
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	if p.ASCII {
		w.SetStyle(table.StyleDefault)
	}
	w.AppendHeader(p.cells(header))
	needs := measure(nil, p.cells(header))
	for _, row := range rows {
		w.AppendRow(p.cells(row))
		needs = measure(needs, p.cells(row))
	}
	var columns []table.ColumnConfig
	for i, width := range fit(needs, p.Width) {
		c := table.ColumnConfig{Number: i + 1, WidthMax: width, WidthMaxEnforcer: text.WrapSoft}
		if p.Colour {
			c.Transformer = paint
		}
		columns = append(columns, c)
	}
	w.SetColumnConfigs(columns)
	fmt.Fprintln(p.Out, w.Render())
}

// lines makes each text one of a line without tabs.
func lines(texts []string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, printable.Line(text))
	}
	return out
}

// cells holds what comes from files back from the terminal.
func (p *Printer) cells(texts []string) table.Row {
	var row table.Row
	for _, text := range texts {
		row = append(row, p.Printable(text))
	}
	return row
}

// column is what a column needs: its longest line, and its longest word.
type column struct{ line, word int }

func measure(columns []column, row table.Row) []column {
	for i, cell := range row {
		if i == len(columns) {
			columns = append(columns, column{})
		}
		c := &columns[i]
		c.line = max(c.line, text.LongestLineLen(cell.(string)))
		for word := range strings.FieldsSeq(cell.(string)) {
			c.word = max(c.word, text.StringWidthWithoutEscSequences(word))
		}
	}
	return columns
}

// fit shares the width of the terminal. Narrow columns keep theirs, the others
// get the same. Words are divided only if there is no other way, and in the
// last column first, which is free text.
func fit(columns []column, terminal int) []int {
	const border, padding, least = 1, 3, 5 // of the table, and of each column
	width := func(c column, share int, whole bool) int {
		if whole {
			share = max(share, c.word)
		}
		return min(c.line, share)
	}
	limits := make([]int, len(columns))
	for _, whole := range []int{len(columns), len(columns) - 1, 0} {
		for share := terminal; share >= least; share-- {
			sum := border
			for i, c := range columns {
				limits[i] = width(c, share, i < whole)
				sum += limits[i] + padding
			}
			if sum <= terminal {
				return limits
			}
		}
	}
	return limits
}

// paint colours a cell that is a word by which commands answer: green for yes,
// red for no.
func paint(cell any) string {
	word, _ := cell.(string)
	switch word {
	case "closed", "absent", "brokered", "valid", "equal", "yes", "allowed", "expected":
		return text.FgGreen.Sprint(word)
	case "open", "loadable", "undecided", "listener", "different", "no", "denied", "changed", "interrupted", "failed":
		return text.FgRed.Sprint(word)
	}
	return word
}
