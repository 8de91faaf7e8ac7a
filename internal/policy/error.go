package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one fault of a policy file, or of its meaning.
type Error struct {
	Pos  Pos
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Pos, e.Text) }

// ErrorList holds every fault of a file, in the order of the file. It prints
// one "file:line:col: message" a line.
type ErrorList []*Error

func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As and errors.Is each fault.
func (l ErrorList) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Warning is something legal in a policy that is seldom meant.
type Warning struct {
	Pos  Pos
	Text string
}

func (w Warning) String() string { return fmt.Sprintf("%s: %s", w.Pos, w.Text) }

// maxErrors bounds the errors printed for a file that is no policy at all.
const maxErrors = 1000

// sorted returns the faults in the order of the file, cut to maxErrors.
func sorted(errs ErrorList) ErrorList {
	slices.SortStableFunc(errs, func(a, b *Error) int { return comparePos(a.Pos, b.Pos) })
	if more := len(errs) - maxErrors; more > 0 {
		last := errs[maxErrors-1]
		errs = append(errs[:maxErrors:maxErrors], &Error{last.Pos, fmt.Sprintf("%d more errors follow; correct these first", more)})
	}
	return errs
}

func comparePos(a, b Pos) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

// quote prints a piece of the input for a message: escaped, and cut where it
// would fill the screen.
func quote(s string) string {
	const most = 110 // the longest algorithm name fits
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q…", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}
