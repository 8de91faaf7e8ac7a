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

// Answer is yes, or what is wrong.
type Answer string

const (
	Yes         Answer = "yes"
	No          Answer = "no"
	Changed     Answer = "changed"     // a file differs from what was installed
	Interrupted Answer = "interrupted" // an install or uninstall did not end
	Audit       Answer = "audit"       // what would be denied is recorded, as it was installed
	NotAsked    Answer = "not asked"
	NotNeeded   Answer = "not needed"
)

// Status is how far a platform is under the policy. Its JSON names are stable.
type Status struct {
	Platform  string   `json:"platform"`
	Policy    Answer   `json:"policy"` // whether the policy in force can be read now
	Installed Answer   `json:"installed"`
	Active    Answer   `json:"active"`            // whether running programs use what is installed
	Agent     Answer   `json:"agent"`             // whether containers with grants find the agent
	Probed    Answer   `json:"probed"`            // whether a container started now is closed
	Restart   []string `json:"restart,omitempty"` // units that have to be restarted
	Reasons   []string `json:"reasons,omitempty"` // for each answer other than yes
	// Remark replaces the reasons for a platform that is here, was never
	// installed, and was not asked for: nobody misses it.
	Remark string `json:"remark,omitempty"`
}

// OK reports whether nothing is missing. An answer that was not asked for is
// not missing.
func (s Status) OK() bool {
	return s.Policy == Yes && s.Installed == Yes && (s.Active == Yes || s.Active == Audit) &&
		(s.Agent == Yes || s.Agent == NotNeeded) && (s.Probed == Yes || s.Probed == NotAsked)
}

// Good reports whether something is installed, and nothing is missing of that
// or of what was asked for.
func Good(all []Status) bool {
	missed := func(s Status) bool { return !s.OK() && s.Remark == "" }
	return slices.ContainsFunc(all, Status.OK) && !slices.ContainsFunc(all, missed)
}

// StatusOptions say how to look.
type StatusOptions struct {
	Platforms []string // all that are found if empty
	// Without are platforms that are left out. To look at the kernel half changes
	// something: it forgets sockets that nobody holds.
	Without []string
	Probe   bool   // start a container on each
	Program string // afalg-policy, which runs in it
	// Policy reads a policy as the wrapper does.
	Policy func(name string) (Needs, error)
	// Relying says which running containers of a platform rely on what is not in
	// force; nil if there are none.
	Relying func(platform string) error
	// Profiles makes the profiles of pods as an installation with these options did.
	Profiles func(*Options) (map[string][]byte, error)
}

const (
	askTime   = 3 * time.Minute // a busy host is slow to answer
	probeTime = 2 * time.Minute
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
		if len(o.Platforms) > 0 && !named || slices.Contains(o.Without, p.name) {
			continue
		}
		r, err := readRecord(h, p.name)
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
		if r == nil && !named {
			s.Remark, s.Reasons = strings.Join(s.Reasons, "; "), nil
		}
		all = append(all, s)
	}
	return all, nil
}

func (p platform) status(ctx context.Context, h *host.Host, r *host.Record, o StatusOptions) (Status, error) {
	s := Status{Platform: p.name, Policy: NotAsked, Active: No, Agent: NotNeeded, Probed: NotAsked}
	needs, err := s.readPolicy(r, o)
	if err != nil {
		return s, err
	}
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
		if err := p.active(ask, r); errors.Is(err, errAudit) {
			s.Active = Audit
			s.Reasons = append(s.Reasons, "audit: "+err.Error())
		} else if err != nil {
			s.Active = No
			s.Reasons = append(s.Reasons, "not active: "+err.Error())
			var stale *staleError
			switch {
			case errors.As(err, &stale):
				s.Restart = stale.units
			case errors.Is(err, errStale):
				s.Restart = []string{p.unit}
			}
		}
	}
	if r != nil && p.besides != nil {
		ask, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		for _, reason := range p.besides(ask, r, o, s) {
			s.Active = No
			s.Reasons = append(s.Reasons, reason)
		}
	}
	if r != nil && p.starts {
		if err := o.Relying(p.name); err != nil {
			s.Active = No
			s.Reasons = append(s.Reasons, "not active: "+err.Error())
		}
	}
	if r != nil && p.starts && (needs.Rules || needs.Sockets || r.Options["socketcall"] == socketcallBroker) {
		s.Agent = Yes
		ask, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if err := askAgent(ask, r); err != nil {
			s.Agent = No
			s.Reasons = append(s.Reasons, "containers that are granted something do not start: "+err.Error())
		}
	}
	if o.Probe && r == nil {
		s.Probed = No
	} else if o.Probe && s.Active != Audit && p.probe != nil {
		s.Probed = Yes
		ask, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		if err := p.probe(ask, o.Program); err != nil {
			s.Probed = No
			s.Reasons = append(s.Reasons, "not probed closed: "+err.Error())
		}
	}
	return s, nil
}

// readPolicy reads the policy first: without it, no container starts as it
// says.
func (s *Status) readPolicy(r *host.Record, o StatusOptions) (n Needs, err error) {
	if r == nil {
		return n, nil
	}
	s.Policy = Yes
	if n, err = o.Policy(r.Options["policy"]); err != nil {
		s.Policy = No
		s.Reasons = append(s.Reasons, fmt.Sprintf("the policy %s cannot be read: %v", r.Options["policy"], err))
	}
	return n, nil
}

func installed(h *host.Host, r *host.Record) (Answer, error) {
	switch {
	case r == nil:
		return No, nil
	case r.Interrupted():
		return Interrupted, nil
	}
	if held, err := intact(h, r); err != nil {
		return No, err
	} else if !held {
		return Changed, nil
	}
	return Yes, nil
}

// errStale means that a daemon works with files that it read before.
var errStale = errors.New("restart it")

// lastLine is the reason that a program prints at its end, for an error. A last
// line that only points to help, as docker's does, is not the reason.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for len(lines) > 1 && (strings.Contains(lines[len(lines)-1], "--help") || strings.TrimSpace(lines[len(lines)-1]) == "") {
		lines = lines[:len(lines)-1]
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
