package admit

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Registration is an entry of a container in the kernel half.
type Registration struct {
	Rules  []string // that it holds
	Relies bool     // it must not start without this
}

// registerTime is how long a runtime waits for the hook, in seconds.
const registerTime = 30

// withRegistration has the runtime register a container, when it has a process
// and a cgroup: a wrapper that becomes the runtime cannot. Nothing is added where
// the kernel has no policy, or does not tell this user.
func (s *Starting) withRegistration(out oci.Outcome) (*oci.Spec, error) {
	if !out.Registers() {
		return out.Spec, nil
	}
	if _, err := lsm.ReadState(); err != nil && !out.Relies {
		return out.Spec, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, hosterr.Errorf("find this program: %w", err)
	}
	args := []string{"afalg-policy", "hook", "register", "--policy", s.Policy, "--platform", s.Platform}
	if s.Options.Log != "" {
		args = append(args, "--decision-log", s.Options.Log)
	}
	for _, rule := range out.Grants {
		args = append(args, "--grant", rule)
	}
	if out.Relies {
		args = append(args, "--relies")
	}
	timeout := registerTime
	return out.Spec.WithHook(specs.Hook{Path: self, Args: args, Timeout: &timeout})
}

// Register enters a container whose process exists and does not run its program
// yet.
func (s *Starting) Register(state *specs.State, r Registration) error {
	p, err := kept.LivePolicy(s.Policy, func(text string) { s.log.policy(text); s.Warn(text) })
	if err != nil {
		return err
	}
	return s.register(p, state, r)
}

// register is for a container that the policy lets start. One that relies on the
// kernel half does not start unless that knows it; all others have a profile that
// closes what they may not have.
func (s *Starting) register(p *plan.Plan, state *specs.State, r Registration) error {
	g, err := lsm.Register(p, state.ID, state.Pid, r.Rules)
	if err == nil && r.Relies {
		err = lsm.Rely(lsm.Relying{Grantee: g, Platform: s.Platform})
	}
	switch {
	case err == nil:
		return nil
	case r.Relies:
		err = fmt.Errorf("the container relies on the kernel half, and cannot be registered there: %w", err)
		s.log.unregistered(state.ID, s.Platform, err)
		return err
	case !errors.Is(err, lsm.ErrNotLoaded):
		s.log.unregistered(state.ID, s.Platform, err)
	}
	return nil
}
