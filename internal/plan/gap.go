package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// GapKind tells on which side of the policy a target falls.
type GapKind string

const (
	// Stricter denies what the policy allows, or what the base allowed.
	Stricter GapKind = "stricter"
	// Wider allows what the policy denies.
	Wider GapKind = "wider"
	// Breaking is stricter, and stops somebody who is here and needs AF_ALG.
	Breaking GapKind = "breaking"
	// Different denies as the policy does, in another way: with another errno,
	// or with an effect besides.
	Different GapKind = "different"
)

// MustAccept reports whether nothing is written until the user takes the gap on.
func (k GapKind) MustAccept() bool { return k == Wider || k == Breaking }

// Effect is what happens to a call by a route that a target closes, besides the
// refusal.
type Effect string

const (
	// Kills: SIGSYS, to every call of the ABI.
	Kills Effect = "killed"
	// Loads: the kernel may load the family's module first.
	Loads Effect = "loads module"
)

// Gap is what a target cannot express of the policy.
type Gap struct {
	Kind GapKind
	// Name is what --accept takes: the name of a policy rule, or of a route.
	Name   string
	Routes []afalg.Route // those that the gap is about
	Text   string        // what it means and what to do about it
	Effect Effect        // on each of the routes; most have none
}

// Gap makes a gap of the kind.
func (k GapKind) Gap(name string, routes []afalg.Route, text string) Gap {
	return Gap{Kind: k, Name: name, Routes: routes, Text: text}
}

// With adds an effect to a gap.
func (g Gap) With(e Effect) Gap {
	g.Effect = e
	return g
}

func (g Gap) String() string { return fmt.Sprintf("%s: %s: %s", g.Kind, g.Name, g.Text) }

// Steered is what the gap of a target says besides, if it opens AF_ALG for a rule
// and cannot see how an executable was started; most rules do not ask for that.
func Steered(r policy.Rule) string {
	if !r.StrictExec {
		return ""
	}
	return ", and to whoever steers its binaries, by LD_PRELOAD or as a tracer, which strict-exec denies"
}

// ZeroCopyGaps is the gap of a target that opens AF_ALG to somebody, if the
// policy says that zero-copy is denied: no target sees that.
func (p *Plan) ZeroCopyGaps(opens bool) []Gap {
	if !opens || p.ZeroCopy != policy.Yes {
		return nil
	}
	return []Gap{Wider.Gap(policy.GapZeroCopy, nil,
		"whoever has AF_ALG can hand it pages without a copy, by splice or sendfile, which the policy denies; only the kernel half can refuse that")}
}

// UnacceptedError reports wider and breaking gaps that nobody accepted.
type UnacceptedError struct{ Gaps []Gap }

func (e *UnacceptedError) Error() string {
	var lines []string
	for _, k := range []struct {
		kind GapKind
		text string
	}{{Wider, "the output would allow more than the policy:"}, {Breaking, "the output would stop what the policy allows:"}} {
		first := true
		for _, g := range e.Gaps {
			if g.Kind != k.kind {
				continue
			}
			if first {
				lines, first = append(lines, k.text), false
			}
			lines = append(lines, fmt.Sprintf("  %s: %s (accept with --accept %s)", g.Name, g.Text, g.Name))
		}
	}
	return strings.Join(lines, "\n")
}

// Untold leaves out the gaps that an error names.
func Untold(gaps []Gap, err error) []Gap {
	var open *UnacceptedError
	if !errors.As(err, &open) {
		return gaps
	}
	return slices.DeleteFunc(slices.Clone(gaps), func(g Gap) bool { return g.Kind.MustAccept() })
}

// Settle returns an error unless every gap that must be was accepted by name,
// and every accepted name belongs to such a gap. Names in standing are accepted
// for whatever comes, as for the containers of a host; not every output has a
// gap of that name.
func Settle(gaps []Gap, accept, standing []string) error {
	var open []Gap
	known := map[string]bool{}
	for _, g := range gaps {
		if !g.Kind.MustAccept() {
			continue
		}
		known[g.Name] = true
		if !slices.Contains(accept, g.Name) && !slices.Contains(standing, g.Name) {
			open = append(open, g)
		}
	}
	if len(open) > 0 {
		return &UnacceptedError{open}
	}
	for _, name := range accept {
		if !known[name] {
			return fmt.Errorf("--accept %s: this output has no wider gap of that name", name)
		}
	}
	return nil
}

// RulesNamed looks rules up, for a grant.
func (p *Plan) RulesNamed(names []string) ([]policy.Rule, error) {
	var rules []policy.Rule
	for _, name := range names {
		i := slices.IndexFunc(p.Rules, func(r policy.Rule) bool { return r.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--grant %s: the policy has no rule of that name", name)
		}
		rules = append(rules, p.Rules[i])
	}
	return rules, nil
}
