package deploy

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Change is a policy that is to take the place of another.
type Change struct {
	File   string // the new one
	Policy string // the one that this host's containers start under
	DryRun bool   // replace nothing, and report the changes
	Warn   func(policy.Warning)
	Note   func(text string) // a line for people, about what is in force
	Tool   string            // name and version of the program, for what is made anew
}

// Applied is the result of apply; its JSON form is a contract.
type Applied struct {
	report.Header
	Policy      string            `json:"policy"`
	Digest      string            `json:"digest,omitempty"` // of a valid policy
	Before      string            `json:"before,omitempty"` // digest of what was in force
	Differences []plan.Difference `json:"differences"`
	Applied     bool              `json:"applied"` // false for a dry run, and if the policy is invalid
	Agent       install.Answer    `json:"agent"`   // whether one runs and was told
	Errors      []report.Fault    `json:"errors,omitempty"`

	before, after *plan.Plan
}

// Apply replaces the policy of this host's containers in one step, and has the
// agent read it again. An invalid policy replaces nothing; the result says so
// besides the policy.ErrorList. Any other error has no result: a *plan.ReadError
// of the new policy, or that of install.ReplacePolicy.
func Apply(ctx context.Context, c Change) (*Applied, error) {
	text, err := plan.ReadFile(c.File)
	if err != nil {
		return nil, &plan.ReadError{Name: c.File, Err: err}
	}
	after, err := c.load(text)
	if invalid := (policy.ErrorList)(nil); errors.As(err, &invalid) {
		return &Applied{
			Header: report.NewHeader("apply", report.Invalid), Policy: c.Policy,
			Differences: []plan.Difference{}, Agent: install.NotAsked, Errors: report.Faults(invalid),
		}, err
	}
	if err != nil {
		return nil, err
	}
	before := c.inForce()
	done := &Applied{
		Header: report.NewHeader("apply", report.Valid), Policy: c.Policy, Digest: after.Digest,
		Differences: plan.Differences(before, after), Applied: !c.DryRun, Agent: install.NotAsked,
		before: before, after: after,
	}
	if before != nil {
		done.Before = before.Digest
	}
	if !c.DryRun {
		if done.Agent, err = c.putInForce(ctx, text, after); err != nil {
			return nil, err
		}
	}
	if done.Differences == nil {
		done.Differences = []plan.Difference{}
	}
	return done, nil
}

// load reads a text as the policy that it is to become: what it includes is
// found from there. Errors name the file that the text is in.
func (c Change) load(text []byte) (*plan.Plan, error) {
	p, warnings, err := plan.Load(c.Policy, func(name string) ([]byte, error) {
		if name == c.Policy {
			return text, nil
		}
		return readTrusted("/", "include", name)
	})
	for _, w := range warnings {
		if w.Pos.File == c.Policy {
			w.Pos.File = c.File
		}
		c.Warn(w)
	}
	return p, inFile(err, c.Policy, c.File)
}

// inFile names another file in the places of errors.
func inFile(err error, was, is string) error {
	list, ok := err.(policy.ErrorList)
	if !ok {
		return err
	}
	for _, e := range list {
		if e.Pos.File == was {
			e.Pos.File = is
		}
	}
	return list
}

// inPlace reports whether the policy was edited in place.
func (c Change) inPlace() bool {
	new, err := os.Stat(c.File)
	old, err2 := os.Stat(c.Policy)
	return err == nil && err2 == nil && os.SameFile(new, old)
}

// inForce is the plan that containers start under now; nil if none do. Where the
// policy was edited in place, it is the last good one, which was kept.
func (c Change) inForce() *plan.Plan {
	if c.inPlace() {
		return kept.LastPolicy(c.Policy)
	}
	p, err := kept.LivePolicy(c.Policy, c.Note)
	if err != nil {
		c.Note("note: the policy " + c.Policy + " was not in force: " + err.Error())
		return nil
	}
	return p
}

// putInForce replaces the policy and tells the agent.
func (c Change) putInForce(ctx context.Context, text []byte, p *plan.Plan) (install.Answer, error) {
	if err := install.ReplacePolicy(c.Policy, text); err != nil {
		return install.No, err
	}
	if err := kept.KeepPolicy(c.Policy, p); err != nil {
		c.Note("note: " + keepNote(err))
	}
	if err := renewProfiles(c.Policy, p, c.Tool, func(text string) { c.Note("note: " + text) }); err != nil {
		return install.No, hosterr.Errorf("%s is replaced; the profiles that pods name are not yet: %w; run \"afalg-policy install kubernetes\" again", c.Policy, err)
	}
	told, err := install.TellAgent(ctx)
	switch {
	case err != nil:
		return install.No, hosterr.Errorf("%s is replaced, and containers that start follow it; the agent does not yet: %w", c.Policy, err)
	case told:
		return install.Yes, nil
	}
	return install.No, nil
}

// Text writes what changes, one request or container a line.
func (a *Applied) Text(t *term.Printer) {
	for _, d := range a.Differences {
		t.Printf("%s\t%s", d.Change, d.What)
	}
	switch {
	case len(a.Differences) > 0:
	case a.Before == a.Digest:
		t.Printf("unchanged: it means what was in force")
	default:
		t.Printf("unchanged: the same is allowed to the same")
	}
	if a.Applied {
		t.Notef("applied: %s (%s)%s", a.Policy, a.Digest, map[bool]string{true: "; the agent reads it again"}[a.Agent == install.Yes])
	}
}

// Following notes what is left to do for the platforms that follow the policy.
func (a *Applied) Following() (notes []string, err error) {
	following, notes, err := install.Following(a.Policy, needsOf(a.after))
	if err != nil {
		return nil, err
	}
	if a.before != nil && len(following) > 0 && closes(a.before) != closes(a.after) {
		notes = append(notes, `the default profiles close what the policy closed before: run "afalg-policy install" again for `+strings.Join(following, ", "))
	}
	return notes, nil
}

// closes is what default profiles are made of.
func closes(p *plan.Plan) string {
	return p.SocketErrno.Name + " for " + strings.Join(append([]string{"AF_ALG"}, p.ClosedNames()...), ", ")
}
