package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Answer is yes, or what is the matter.
type Answer string

const (
	Yes         Answer = "yes"
	No          Answer = "no"
	Changed     Answer = "changed"     // a file is not as it was installed
	Interrupted Answer = "interrupted" // an install or uninstall did not end
	NotAsked    Answer = "not asked"
)

// Status is how far a platform is under the policy. Its JSON names are stable.
type Status struct {
	Platform  string   `json:"platform"`
	Installed Answer   `json:"installed"`
	Active    Answer   `json:"active"`            // whether what runs uses what is installed
	Proved    Answer   `json:"proved"`            // whether a container that was started now is closed
	Restart   []string `json:"restart,omitempty"` // units that have to be restarted
	Reasons   []string `json:"reasons,omitempty"` // for each answer that is not yes
}

// OK tells whether nothing is missing. What was not asked for is not missed.
func (s Status) OK() bool {
	return s.Installed == Yes && s.Active == Yes && (s.Proved == Yes || s.Proved == NotAsked)
}

// StatusOptions say how to look.
type StatusOptions struct {
	Platforms []string // all that are found if empty
	Prove     bool     // start a container on each
	Program   string   // afalg-policy, which is run in it
}

const (
	askTime   = time.Minute // a busy host is slow to answer
	proveTime = 2 * time.Minute
)

// Check looks at the platforms of this host.
func Check(ctx context.Context, o StatusOptions) ([]Status, error) {
	h, err := host.Open("/")
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var all []Status
	for _, name := range o.Platforms {
		if _, err := platformOf(name); err != nil {
			return nil, err
		}
	}
	for _, p := range platforms() {
		named := slices.Contains(o.Platforms, p.name)
		if len(o.Platforms) > 0 && !named {
			continue
		}
		r, err := h.ReadRecord(p.name)
		if err != nil {
			return nil, err
		}
		switch here := r != nil || p.found(h); {
		case !here && named:
			return nil, notFound(h, p)
		case !here:
			continue
		}
		s, err := p.status(ctx, h, r, o)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (p platform) status(ctx context.Context, h *host.Host, r *host.Record, o StatusOptions) (Status, error) {
	s := Status{Platform: p.name, Active: No, Proved: NotAsked}
	var err error
	if s.Installed, err = installed(h, r); err != nil {
		return s, err
	}
	switch s.Installed {
	case No:
		s.Reasons = append(s.Reasons, fmt.Sprintf("not installed: run \"afalg-policy install %s\"", p.name))
	case Interrupted:
		s.Reasons = append(s.Reasons, fmt.Sprintf("%s was interrupted: run install or uninstall again", r.Phase))
	case Changed:
		s.Reasons = append(s.Reasons, fmt.Sprintf("files were changed since: \"afalg-policy uninstall %s --dry-run\" shows how", p.name))
	}
	if r != nil {
		s.Active = Yes
		ask, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if err := p.active(ask, r); err != nil {
			s.Active = No
			s.Reasons = append(s.Reasons, "not active: "+err.Error())
			if errors.Is(err, errStale) {
				s.Restart = []string{p.unit}
			}
		}
	}
	if o.Prove && r == nil {
		s.Proved = No
	} else if o.Prove {
		s.Proved = Yes
		ask, cancel := context.WithTimeout(ctx, proveTime)
		defer cancel()
		if err := p.prove(ask, o.Program); err != nil {
			s.Proved = No
			s.Reasons = append(s.Reasons, "not proved: "+err.Error())
		}
	}
	return s, nil
}

func installed(h *host.Host, r *host.Record) (Answer, error) {
	switch {
	case r == nil:
		return No, nil
	case r.Interrupted():
		return Interrupted, nil
	}
	if changed, err := h.Changed(r); err != nil {
		return No, err
	} else if changed {
		return Changed, nil
	}
	return Yes, nil
}

// errStale tells that a daemon works with what it read before.
var errStale = errors.New("restart it")

// lastLine is what a program says in the end, for an error.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
