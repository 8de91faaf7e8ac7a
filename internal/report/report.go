// Package report has what commands report, as values: what a policy says (Check,
// Explanation, Held), what a target cannot express of it (Gaps), what filters do
// (Filters, Comparison, Host), what the running kernel answered (Probe), how far
// platforms are (Status). Each value has a form in JSON, which is a contract, and
// one as text; Filters has one in SARIF too. Questions about filters are asked here
// as well: of those that package source finds, and of all processes of a host.
package report

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Version is that of the reports' JSON form. It grows when a key that was
// there goes, or means something else; further keys may come at any time.
const Version = 1

// Header begins every report.
type Header struct {
	Report  string `json:"report"`            // the command
	Version int    `json:"version"`           // of the form
	Verdict string `json:"verdict,omitempty"` // the answer, in one word; none if nothing was asked
}

// The words of verdicts: the same in tables and in JSON.
const (
	Closed    = "closed"
	Open      = "open"
	Undecided = "undecided"
	Listener  = "listener"
	Equal     = "equal"
	Different = "different"
	Allowed   = "allowed"
	Denied    = "denied"
	Expected  = "expected"
	Valid     = "valid"
	Invalid   = "invalid"
	Yes       = "yes"
	No        = "no"
)

// NewHeader is the header of a command's report, in the version of this program.
func NewHeader(command, verdict string) Header {
	return Header{command, Version, verdict}
}

// conclude writes the last line of a report: the verdict, and what it is of.
func conclude(t *term.Printer, verdict, format string, args ...any) {
	rest := t.Printable(fmt.Sprintf(format, args...))
	fmt.Fprintf(t.Out, "verdict: %s: %s\n", t.Answer(verdict), rest)
}
