// Package term writes text for people: tables and colours where there is a
// terminal, tabs elsewhere, and nothing by which a file's text could steer it.
package term

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"

	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Printer holds the rules of output. Results go to Out and everything else to
// Notes; what comes from files cannot move the cursor. The zero values of the
// others are for a stream that programs read.
//
// Errors of the streams are not returned. A bufio.Writer as Out keeps them until
// it is flushed.
type Printer struct {
	Out    io.Writer
	Notes  io.Writer
	Tables bool // drawn; else the columns are separated by tabs
	Colour bool // as For found it
	ASCII  bool // the locale knows no other characters
	Width  int  // of the terminal, in columns
}

// For is the printer for two streams, by what they are, and by what the
// environment says of colours and of the locale.
func For(out, notes io.Writer) Printer {
	tty := IsTerminal(out)
	p := Printer{
		Out:    out,
		Notes:  notes,
		Tables: tty,
		Colour: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		ASCII:  asciiLocale(),
		Width:  width(out),
	}
	if p.Colour {
		text.EnableColors()
	}
	return p
}

// asciiLocale reports whether the user has named a locale without UTF-8. Where
// none is named, as under cron, the text is UTF-8.
func asciiLocale() bool {
	name := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"))
	coding := strings.ToLower(strings.ReplaceAll(name, "-", ""))
	return name != "" && !strings.Contains(coding, "utf8")
}

func width(w io.Writer) int {
	const usual = 80
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return usual
}

// IsTerminal reports whether a stream, a *os.File, is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Printf writes a line of the result.
func (p *Printer) Printf(format string, args ...any) {
	fmt.Fprintln(p.Out, p.Printable(fmt.Sprintf(format, args...)))
}

// Notef writes a line that is not the result, behind what was written of that:
// where both streams are one terminal, both stand in their order.
func (p *Printer) Notef(format string, args ...any) {
	if buffered, ok := p.Out.(interface{ Flush() error }); ok {
		buffered.Flush() // an error stays with the buffer, and surfaces as those of Printf
	}
	fmt.Fprintln(p.Notes, p.Printable(fmt.Sprintf(format, args...)))
}

// Note is Notef for a text.
func (p *Printer) Note(text string) { p.Notef("%s", text) }

// JSON writes a value as the result.
func (p *Printer) JSON(v any) error {
	enc := json.NewEncoder(p.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Answer is a word of a free text, coloured as in a table.
func (p *Printer) Answer(word string) string {
	if !p.Colour {
		return word
	}
	return paint(word)
}

// Printable is a text that cannot steer the terminal, in characters of the
// locale.
func (p *Printer) Printable(s string) string {
	if p.ASCII {
		return asASCII(printable.Lines(s))
	}
	return printable.Lines(s)
}

// asASCII writes a text with the characters that every locale has.
func asASCII(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r <= unicode.MaxASCII {
			b.WriteRune(r)
		} else {
			b.WriteString(plain(r))
		}
	}
	return b.String()
}

// plain is how ASCII writes a character that the program's own texts have, and
// "?" for any other.
func plain(r rune) string {
	switch r {
	case '…':
		return "..."
	case '–', '—', '·':
		return "-"
	case '’', '‘':
		return "'"
	case '“', '”':
		return `"`
	case '→':
		return "->"
	case '×':
		return "x"
	case '≥':
		return ">="
	case '≤':
		return "<="
	}
	return "?"
}

// asciiWriter writes texts of the program itself, as help is, for a locale
// without UTF-8. They come whole.
type asciiWriter struct{ io.Writer }

func (w asciiWriter) Write(text []byte) (int, error) {
	_, err := io.WriteString(w.Writer, asASCII(string(text)))
	return len(text), err
}

// Help is where texts of the program itself go. Each is written at once.
func (p *Printer) Help() io.Writer {
	if p.ASCII {
		return asciiWriter{p.Out}
	}
	return p.Out
}

// Count is "1 rule", "2 rules", "2 processes".
func Count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Dash is what a cell shows that has no text.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
