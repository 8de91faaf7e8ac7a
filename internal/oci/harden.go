package oci

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// Options say how containers are hardened. The zero value has no plan, and
// everything is refused.
type Options struct {
	Plan  *plan.Plan
	Tool  string     // name and version of this program
	Arch  specs.Arch // of this machine
	Agent string     // the socket of the agent; absolute
	// DenyWithoutAgent starts a container that is granted something while no
	// agent listens, without what it was granted. Otherwise it is refused.
	DenyWithoutAgent bool
	// Brokered leaves socketcall, by which 32-bit programs make all sockets, to
	// the agent in every container; otherwise it is denied.
	Brokered bool
	Memo     gen.Memo // nil: nothing is kept
}

// Outcome is what becomes of a container's spec.
type Outcome struct {
	Spec    []byte   // the spec to use; the one that was given, if nothing changes
	Grants  []string // the rules that the container holds
	Refused []plan.Refusal
	Verdict Verdict
	Reason  string // why, where the verdict is not as usual; for people
}

// Verdict is one word for what became of a container.
type Verdict string

const (
	Closed     Verdict = "closed"     // it holds no rule, and every route is closed
	Granted    Verdict = "granted"    // it holds rules, which the agent decides by
	Unconfined Verdict = "unconfined" // it has no filter, and the policy lets it through
)

// NotStartedError says that a container is not started. It tells what to do.
type NotStartedError struct{ Text string }

func (e *NotStartedError) Error() string { return e.Text }

func refuse(format string, args ...any) error { return &NotStartedError{fmt.Sprintf(format, args...)} }

// hold says which rules the container holds in the end.
func (out *Outcome) hold(grants []string) {
	out.Grants, out.Verdict = grants, Closed
	if len(grants) > 0 {
		out.Verdict = Granted
	}
}

// Harden changes linux.seccomp of a spec so that the container has what it is
// granted and nothing else. Every other byte stays. What is returned was
// compiled as the runtimes do, and the programs asked every route.
func (o Options) Harden(spec *Spec, c plan.Container) (Outcome, error) {
	if o.Plan == nil {
		return Outcome{}, errors.New("there is no policy")
	}
	out := Outcome{Spec: spec.Text}
	out.Grants, out.Refused = o.Plan.GrantsOf(c)
	g := o.generator()
	if spec.Seccomp == nil {
		return o.unconfined(out, spec, g)
	}
	if spec.Seccomp.ListenerPath != "" {
		return o.listening(out, spec)
	}
	return o.hardened(out, spec, g)
}

func (o Options) generator() gen.SeccompOptions {
	return gen.SeccompOptions{
		Common: gen.Common{Tool: o.Tool}, Socketcall: gen.SocketcallDeny,
		Host: profile.Host{Arch: o.Arch}, Memo: o.Memo,
	}
}

// unconfined deals with a container that would have no filter.
func (o Options) unconfined(out Outcome, spec *Spec, g gen.SeccompOptions) (Outcome, error) {
	switch o.Plan.Unconfined {
	case plan.Allow:
		out.Verdict, out.Grants = Unconfined, nil
		out.Reason = "it has no seccomp profile, and the policy says containers: unconfined: allow"
		return out, nil
	case plan.Harden:
		var err error
		if g.Base, err = profile.AllowAll(o.Arch); err != nil {
			return out, err
		}
		out.Reason = "it had no seccomp profile, and got one that closes AF_ALG and nothing else (containers: unconfined: harden)"
		return o.hardened(out, spec, g)
	default:
		return out, refuse("the container has no seccomp profile (privileged, or seccomp=unconfined), and the policy refuses such containers: start it with a profile, or say containers: unconfined: harden, which gives it one that closes AF_ALG alone, or allow, in the policy")
	}
}

// listening deals with a spec that has a listener already: ours, if this is
// the second time that the spec is hardened, and nobody's business otherwise.
func (o Options) listening(out Outcome, spec *Spec) (Outcome, error) {
	held, err := o.prove(spec.Seccomp, out.Grants)
	if err != nil {
		return out, fmt.Errorf("the profile has a listener already: %w", err)
	}
	out.hold(held)
	return out, nil
}

// hardened generates the profile.
func (o Options) hardened(out Outcome, spec *Spec, g gen.SeccompOptions) (Outcome, error) {
	if err := o.reach(&out); err != nil {
		return out, err
	}
	if len(out.Grants) > 0 || o.Brokered {
		g.Broker, g.Grants = o.Agent, out.Grants
	}
	if o.Brokered {
		g.Socketcall = gen.SocketcallBroker
	}
	text, _, err := spec.config.Harden(o.Plan, g)
	if err != nil {
		return out, err
	}
	out.Spec = text
	out.hold(out.Grants)
	return out, nil
}

// Check is the gate: it proves that a spec which nobody will change any more is
// closed, but for what the container is granted.
func (o Options) Check(spec *Spec, c plan.Container) (Outcome, error) {
	if o.Plan == nil {
		return Outcome{}, errors.New("there is no policy")
	}
	out := Outcome{Spec: spec.Text}
	out.Grants, out.Refused = o.Plan.GrantsOf(c)
	if spec.Seccomp == nil {
		if o.Plan.Unconfined == plan.Allow {
			return o.unconfined(out, spec, o.generator())
		}
		return out, refuse("the container has no seccomp profile (privileged, or seccomp=unconfined), and this hook cannot give it one: start it with a profile, have it hardened (afalg-policy install), or say containers: unconfined: allow in the policy")
	}
	held, err := o.prove(spec.Seccomp, out.Grants)
	if err != nil {
		return out, err
	}
	out.hold(held)
	return out, nil
}

// prove proves a profile closed, or left to the agent with no other grants
// than these. It returns those that the profile has.
func (o Options) prove(p *specs.LinuxSeccomp, grants []string) (held []string, err error) {
	g := o.generator()
	if p.ListenerPath != "" {
		if held, err = o.ours(p, grants); err != nil {
			return nil, err
		}
		g.Broker = o.Agent
	}
	if err := gen.Prove(o.Plan, p, g); err != nil {
		return nil, refuse("the container's seccomp profile does not close AF_ALG: %v; harden it (afalg-policy generate seccomp --base FILE), or have it hardened for every container (afalg-policy install)", err)
	}
	return held, nil
}

// ours tells whether a listener is the agent's, and asks it for no more than
// the container holds. It returns what it asks for.
func (o Options) ours(p *specs.LinuxSeccomp, grants []string) ([]string, error) {
	if p.ListenerPath != o.Agent {
		return nil, refuse("the seccomp profile hands calls to the listener %q, and what it answers cannot be proved; the agent of this host is %s", p.ListenerPath, o.Agent)
	}
	m, err := plan.ParseMetadata(p.ListenerMetadata)
	if err != nil {
		return nil, refuse("the seccomp profile: %v", err)
	}
	for _, name := range m.Grants {
		if !slices.Contains(grants, name) {
			return nil, refuse("the seccomp profile claims the rule %q, which the policy does not grant to this container: a profile grants nothing by itself; name the container in containers: grants: of the policy", name)
		}
	}
	return m.Grants, nil
}
