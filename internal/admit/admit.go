// Package admit decides about one container as it starts: it reads the policy,
// asks who the container is, hardens or proves its spec within a deadline, and
// writes down what was decided. The hooks and the wrapper runtime are its users.
package admit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

// Options say under what a container starts.
type Options struct {
	Stage    string // precreate, createRuntime or runtime; for the log
	Policy   string // a path, or builtin:NAME
	Platform string // who vouches for the container's name and image
	Agent    string // socket of the agent, for containers with grants
	Tool     string // name and version of this program
	// DenyWithoutAgent, Socketcall, Accepted and KernelHalf are those of
	// oci.Options.
	DenyWithoutAgent bool
	Socketcall       harden.Socketcall
	Accepted         []string
	KernelHalf       func() error
	Log              string            // file to append a line of JSON to; none if empty
	Warn             func(text string) // of what stops no container
}

// Starting is one container on its way. It says nothing on standard error but
// why the container is refused: that of a runtime is the container's own.
type Starting struct {
	Options
	log  *Log
	memo *oci.Memo // nil: nothing is kept
	// restored containers bring their names from a checkpoint, and nobody
	// vouches for them.
	restored bool
}

// Open opens the log. A container does not fail because nobody could write it
// down: that is a warning.
func Open(o Options) *Starting {
	s := &Starting{Options: o}
	var err error
	if s.log, err = OpenLog(o.Log); err != nil {
		o.Warn(fmt.Sprintf("afalg-policy: the decision log: %v", err))
	}
	return s
}

// Close closes the log and what was proved.
func (s *Starting) Close() {
	s.log.Close()
	if s.memo != nil {
		s.memo.Close()
	}
}

func (s *Starting) options() (oci.Options, error) {
	p, err := kept.LivePolicy(s.Policy, func(text string) { s.log.policy(text); s.Warn(text) })
	if err != nil {
		return oci.Options{}, err
	}
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return oci.Options{}, hosterr.Errorf("%w", err)
	}
	o := oci.Options{
		Plan: p, Tool: s.Tool, Arch: arch, Agent: s.Agent,
		DenyWithoutAgent: s.DenyWithoutAgent,
		Socketcall:       s.Socketcall,
		Accepted:         s.Accepted,
		KernelHalf:       s.KernelHalf,
	}
	if s.memo = kept.OpenProofs(s.Tool); s.memo != nil {
		o.Memo = s.memo
	}
	return o, nil
}

// question is what one of the hooks, or the wrapper, asks of a spec.
type question func(o oci.Options, spec *oci.Spec, c plan.Container) (oci.Outcome, error)

// decideAndLog decides about a container, and writes down what was decided.
func (s *Starting) decideAndLog(source vouch.Source, text []byte, ask question) (oci.Outcome, error) {
	c := plan.Container{Platform: source.Platform, ID: source.ID}
	d, err := inTime(func() decision {
		out, c, err := s.decide(source, text, ask)
		return decision{out, c, err}
	})
	if err != nil {
		d = decision{container: c, err: specError(source, err)}
	}
	s.log.Container(s.Stage, d.container, d.Outcome, d.err)
	return d.Outcome, d.err
}

func (s *Starting) decide(source vouch.Source, text []byte, ask question) (oci.Outcome, plan.Container, error) {
	c := plan.Container{Platform: source.Platform, ID: source.ID}
	o, err := s.options()
	if err != nil {
		return oci.Outcome{}, c, err
	}
	spec, err := oci.ReadSpec(text)
	if err != nil {
		return oci.Outcome{}, c, specError(source, err)
	}
	source.Spec = spec.Config
	if c, err = vouch.Container(source); err != nil {
		s.log.identity(c, err)
	}
	if s.restored {
		c.Vouched, c.Claimed = plan.Identity{}, c.Vouched
	}
	out, err := ask(o, spec, c)
	return out, c, specError(source, err)
}

// specError says which spec an error is about.
func specError(source vouch.Source, err error) error {
	var refused *oci.NotStartedError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	name := "the spec"
	if source.Bundle != "" {
		name = filepath.Join(source.Bundle, oci.ConfigName)
	}
	return &profile.NamedError{Name: name, Err: err}
}

// Harden hardens a spec, which the container's platform does not name.
func (s *Starting) Harden(spec []byte) (oci.Outcome, error) {
	return s.decideAndLog(vouch.Source{Platform: s.Platform}, spec, oci.Options.Harden)
}

// Check proves the spec in the bundle of a container, and changes nothing. A
// spec that others than root can write is refused: it may have changed since the
// runtime read it.
func (s *Starting) Check(state *specs.State) error {
	if err := oci.Sealed(state.Bundle); err != nil {
		return err
	}
	spec, err := oci.ReadBundle(state.Bundle)
	if err != nil {
		return err
	}
	source := vouch.Source{Platform: s.Platform, ID: state.ID, Bundle: state.Bundle}
	ask := oci.Options.Check
	if s.restored = oci.Restored(state); s.restored && !ownBundles().Hold(state.Bundle) {
		ask = oci.Options.RefuseRestored
	}
	out, err := s.decideAndLog(source, spec, ask)
	if err != nil || !out.Registers() {
		return err
	}
	return s.Register(state, Registration{Rules: out.Grants, Relies: out.Relies})
}

// crunReceiver stands for the annotation run.oci.seccomp.receiver (crun(1)).
const crunReceiver = "RUN_OCI_SECCOMP_RECEIVER"

// EnvironmentError is a variable of the environment with which the real runtime
// does not do what is proved.
type EnvironmentError struct{ Name string }

func (e *EnvironmentError) Error() string {
	return fmt.Sprintf("the environment variable %s has crun hand the listener of the filter to others, so that nothing can be proved: unset it", e.Name)
}

// Bundle makes a bundle with the hardened spec of the container that a command
// line of the real runtime starts, and returns its directory.
func (s *Starting) Bundle(inv *oci.Invocation, real string) (string, error) {
	if os.Getenv(crunReceiver) != "" {
		return "", &EnvironmentError{crunReceiver}
	}
	origin, err := filepath.Abs(inv.Bundle)
	if err != nil {
		return "", hosterr.Errorf("the working directory: %w", err)
	}
	spec, err := readSpec(inv, origin)
	if err != nil {
		return "", err
	}
	bundles := ownBundles()
	source := vouch.Source{Platform: s.Platform, ID: inv.ID, Bundle: bundles.Origin(origin)}
	ask := oci.Options.Harden
	if s.restored = inv.Command == "restore"; s.restored {
		ask = func(o oci.Options, spec *oci.Spec, c plan.Container) (oci.Outcome, error) {
			return o.Restore(spec, c, inv.Images)
		}
	}
	out, err := s.decideAndLog(source, spec, ask)
	if err != nil {
		return "", err
	}
	hardened, err := s.withRegistration(out)
	if err != nil {
		return "", err
	}
	dir, err := bundles.Make(hardened, origin, inv.State(real, kept.RunDir()))
	if err != nil {
		return "", hosterr.Errorf("a bundle for the hardened spec: %w", err)
	}
	return dir, nil
}

// ownBundles are those of the wrapper.
func ownBundles() oci.Bundles { return oci.Bundles{Dir: filepath.Join(kept.StateDir(), "bundles")} }

// readSpec reads the spec that the runtime would take.
func readSpec(inv *oci.Invocation, origin string) ([]byte, error) {
	if inv.Config == "" {
		return oci.ReadBundle(origin)
	}
	spec, err := bounded.ReadFile(inv.Config, oci.MaxSpec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Config, err)
	}
	return spec, nil
}
