package deploy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Result is the result of install and uninstall; its JSON form is a contract.
type Result struct {
	report.Header                  // yes: it is done, or would be
	Platform      string           `json:"platform"`
	Applied       bool             `json:"applied"`         // false for a dry run, and for a no
	Stops         []string         `json:"stops,omitempty"` // what stops working
	Gaps          []report.Gap     `json:"gaps,omitempty"`  // of the drop-ins of services
	Changes       []install.Change `json:"changes"`
	Notes         []string         `json:"notes,omitempty"`
	Restart       []string         `json:"restart,omitempty"` // commands that put it in force
	Recovered     bool             `json:"recovered"`         // an earlier run had been interrupted
	Reason        string           `json:"reason,omitempty"`  // for a no
	Diff          string           `json:"diff,omitempty"`    // what was changed by others, for a no

	kept string // what runs on as it was started
}

func newResult(command, platform string, dryRun bool) *Result {
	return &Result{Header: report.NewHeader(command, report.Yes), Platform: platform, Applied: !dryRun, Changes: []install.Change{}}
}

// Refused is the result of a command that ends by an error before it begins.
func Refused(command, platform string, err error) *Result {
	return newResult(command, platform, false).refused(err)
}

func (r *Result) refused(err error) *Result {
	r.Verdict, r.Applied, r.Reason = report.No, false, err.Error()
	var changed *install.ChangedError
	if errors.As(err, &changed) {
		r.Diff = changed.Diff
	}
	return r
}

func (r *Result) take(done *install.Result) {
	r.Changes = append(r.Changes, done.Changes...)
	r.Notes = append(r.Notes, done.Notes...)
	r.Restart, r.Recovered, r.kept = done.Restart, done.Recovered, done.Kept
}

// maxShown is how many lines of a file that is wholly ours are shown: a profile
// has a thousand. The changes to a file of others are shown whole.
const maxShown = 100

func inBrief(c install.Change) string {
	lines := strings.Split(strings.TrimSuffix(c.Diff, "\n"), "\n")
	if c.What == "changed" || c.What == "restored" || len(lines) <= maxShown {
		return strings.Join(lines, "\n")
	}
	const head = 10
	return fmt.Sprintf("%s\n... %d more lines: --json has them", strings.Join(lines[:head], "\n"), len(lines)-head)
}

// Text writes what was done, or would be, and as notes what is left to do; or
// what others changed, where nothing was done because of it.
func (r *Result) Text(t *term.Printer) {
	if r.Verdict == report.No {
		if r.Diff != "" {
			t.Printf("%s", strings.TrimSuffix(r.Diff, "\n"))
		}
		return
	}
	if r.Recovered {
		t.Notef("an earlier run was interrupted; this one goes on from there")
	}
	for _, c := range r.Changes {
		if !r.Applied {
			t.Printf("%s", inBrief(c))
		} else {
			t.Printf("%s\t%s", c.What, c.Path)
		}
	}
	if len(r.Changes) == 0 {
		t.Printf("unchanged")
	}
	for _, note := range r.Notes {
		t.Notef("note: %s", note)
	}
	if !r.Applied || len(r.Restart) == 0 {
		return
	}
	t.Notef("%sed; %s that run keep what they were started with. Now run:", r.Report, r.kept)
	for _, command := range r.Restart {
		t.Notef("  %s", command)
	}
}
