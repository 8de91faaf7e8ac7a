package profile

import (
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// NamedError says which text an error is about: a file, or a process whose
// filter it was.
type NamedError struct {
	Name string
	Err  error
}

// Error joins the places, with which the lines of the cause may begin, to the
// name.
func (e *NamedError) Error() string {
	name := printable.Line(e.Name)
	lines := strings.Split(e.Err.Error(), "\n")
	for i, text := range lines {
		if hasPlace(text) {
			lines[i] = name + ":" + text
		} else if i == 0 {
			lines[i] = name + ": " + text
		}
	}
	return strings.Join(lines, "\n")
}

func (e *NamedError) Unwrap() error { return e.Err }

// hasPlace reports whether a line begins with "LINE:COLUMN: ".
func hasPlace(text string) bool {
	line, rest, _ := strings.Cut(text, ":")
	column, rest, _ := strings.Cut(rest, ":")
	return isNumber(line) && isNumber(column) && strings.HasPrefix(rest, " ")
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
