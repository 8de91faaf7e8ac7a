package host

import (
	"errors"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Input is what a form is rendered from. Its gaps are settled.
type Input struct {
	Options
	Plan     *plan.Plan
	Facts    hostfacts.Facts
	Settings Settings
	Gaps     []plan.Gap
}

// Form is a way to bring settings to hosts.
type Form struct {
	Name  string
	Short string                    // for the help text
	Gaps  func(Settings) []plan.Gap // what it cannot carry; nil is nothing
	// Effects say when it takes effect, and how it is undone.
	Effects func(Settings, hostfacts.Facts) []string
	Render  func(Input) ([]gen.File, error)
}

// Forms lists the forms, the usual one first.
func Forms() []Form {
	return append([]Form{
		{Name: "files", Short: "files for modprobe.d, sysctl.d and udev, and the kernel's arguments", Effects: effects, Render: files},
	}, fleetForms()...)
}

// ErrNothing means that a policy leaves nothing to close for a whole host.
var ErrNothing = errors.New("there is nothing to set on a host: the policy uses every type of algorithm, and closes nothing besides")

// Host renders a plan in a form, for a host of which the facts are known. The
// settings are returned for what has to be said about them.
func Host(p *plan.Plan, f hostfacts.Facts, form Form, o Options) ([]gen.File, Settings, []plan.Gap, error) {
	s, gaps, err := Decide(p, f, o)
	if err != nil {
		return nil, s, gaps, err
	}
	if form.Gaps != nil {
		gaps = append(gaps, form.Gaps(s)...)
	}
	if err := o.Settle(gaps); err != nil {
		return nil, s, gaps, err
	}
	if s.Empty() {
		return nil, s, gaps, ErrNothing
	}
	if o.Tell != nil {
		for _, note := range append(Notes(s, f), form.Effects(s, f)...) {
			o.Tell(note)
		}
	}
	made, err := form.Render(Input{Options: o, Plan: p, Facts: f, Settings: s, Gaps: gaps})
	return made, s, gaps, err
}
