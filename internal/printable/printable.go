// Package printable makes texts that others wrote fit for a log, a comment or a
// terminal: nothing in them ends a line, moves the cursor or turns the order of
// the letters around.
package printable

import (
	"math"
	"strconv"
	"strings"
	"unicode"
)

// Line escapes what does not print, as Go writes it: a text of one line.
func Line(text string) string { return escape(text, "", math.MaxInt) }

// Lines is Line, except that lines may end, and tabs stay.
func Lines(text string) string { return escape(text, "\n\t", math.MaxInt) }

// Cut is Line for a text that may be long: it ends after about limit bytes.
func Cut(text string, limit int) string { return escape(text, "", limit) }

func escape(text, keep string, limit int) string {
	var b strings.Builder
	for _, r := range text { // bytes that are no UTF-8 come as U+FFFD
		switch {
		case b.Len() >= limit:
			return b.String() + "…"
		case unicode.IsPrint(r), strings.ContainsRune(keep, r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
