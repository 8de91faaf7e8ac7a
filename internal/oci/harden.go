package oci

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
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
	// Socketcall, by which 32-bit programs make all sockets, is denied, kept, or
	// left to the agent in every container; empty is denied. A grant leaves it to
	// the agent in one container.
	Socketcall harden.Socketcall
	Memo       harden.Memo // nil: nothing is kept
	// KeptOnly is that of harden.Options.
	KeptOnly bool
	// Accepted are the names of wider gaps that the user took on for the
	// containers of this host.
	Accepted []string
	// KernelHalf returns why the kernel half is not in force on this host; nil
	// means that it is not.
	KernelHalf func() error
}

// Outcome is what becomes of a container's spec.
type Outcome struct {
	Spec   *Spec    // the spec to use; the one that was given, if nothing changes
	Grants []string // the rules that the container holds
	// Brokered means that socketcall is left to the agent.
	Brokered bool
	// Left means that the kernel half decides about the grants, and no broker.
	Left bool
	// Relies means that the container starts only since the kernel half is in
	// force.
	Relies  bool
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

// holding says which rules the container holds in the end.
func (o Options) holding(grants []string, out Outcome) (Outcome, error) {
	out.Grants, out.Verdict = grants, Closed
	if len(grants) > 0 {
		out.Verdict = Granted
	}
	if err := o.checkClasses(grants); err != nil {
		return out, err
	}
	return out, o.denyZeroCopy(grants)
}

// checkClasses refuses rules that allow a denied class to some of a container
// alone: nobody but its filter closes the class, and a filter sees neither binary
// nor user.
func (o Options) checkClasses(grants []string) error {
	rules, err := o.Plan.RulesNamed(grants)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.OpensClasses() && !r.Anyone {
			return refuse("the rule %s allows what the policy denies besides AF_ALG, under conditions that a filter does not see: grant a rule with anyone: true", r.Name)
		}
	}
	return nil
}

// Harden changes linux.seccomp of a spec so that the container has what it is
// granted and nothing else. Every other byte stays. The result was compiled
// as the runtimes do, and the programs asked every route.
func (o Options) Harden(spec *Spec, c plan.Container) (Outcome, error) {
	out, err := o.begin(spec, c)
	switch {
	case err != nil:
		return out, err
	case spec.Seccomp == nil:
		return o.unconfined(out, spec)
	case spec.Seccomp.ListenerPath != "":
		return o.listening(out, spec)
	}
	return o.hardened(out, spec)
}

// begin says what the container is granted, and whether socketcall is left to
// the agent.
func (o Options) begin(spec *Spec, c plan.Container) (Outcome, error) {
	if o.Plan == nil {
		return Outcome{}, errors.New("there is no policy")
	}
	out := Outcome{Spec: spec, Brokered: o.Socketcall == harden.SocketcallBroker || o.Plan.BrokersSocketcall(c)}
	out.Grants, out.Refused = o.Plan.GrantsOf(c)
	out.Left = o.Plan.LeftToKernel(c) && !out.Brokered
	return out, nil
}

// engine are the options of the engine for a container that is granted nothing.
func (o Options) engine() harden.Options {
	e := harden.Options{Tool: o.Tool, Socketcall: harden.SocketcallDeny, Host: profile.Host{Arch: o.Arch}, Memo: o.Memo, KeptOnly: o.KeptOnly}
	if o.Socketcall == harden.SocketcallKeep {
		e.Socketcall, e.Standing = harden.SocketcallKeep, []string{harden.GapSocketcall}
	}
	return e
}

// unconfined deals with a container that would have no filter.
func (o Options) unconfined(out Outcome, spec *Spec) (Outcome, error) {
	switch {
	case o.Plan.Unconfined.MayBeFree():
		out.Verdict, out.Brokered, out.Left = Unconfined, false, false
		if out.Relies = o.Plan.Unconfined == plan.LSM; !out.Relies {
			out.Grants = nil // it has every algorithm
		}
		out.Reason = "it has no seccomp profile, and the policy says containers: unconfined: " + string(o.Plan.Unconfined)
		return out, o.letThrough()
	case o.Plan.Unconfined == plan.Harden:
		out.Reason = "it had no seccomp profile, and got one that closes AF_ALG and nothing else (containers: unconfined: harden)"
		return o.hardened(out, spec)
	default:
		return out, refuse("the container has no seccomp profile (privileged, or seccomp=unconfined), and the policy refuses such containers: start it with a profile, or say containers: unconfined: harden, which gives it one that closes AF_ALG alone, or allow, in the policy")
	}
}

// listening deals with a spec that has a listener already: ours, if this is
// the second time that the spec is hardened, and nobody's business otherwise.
func (o Options) listening(out Outcome, spec *Spec) (Outcome, error) {
	out.Left = false
	held, err := o.prove(spec.Seccomp, out)
	if err != nil {
		return out, fmt.Errorf("the profile has a listener already: %w", err)
	}
	return o.holding(held, out)
}

// hardened generates the profile.
func (o Options) hardened(out Outcome, spec *Spec) (Outcome, error) {
	if err := o.decider(&out); err != nil {
		return out, err
	}
	if err := o.checkClasses(out.Grants); err != nil {
		return out, err
	}
	base := spec.Seccomp
	if base == nil {
		base = profile.AllowAll(o.Arch)
	}
	hardened, _, err := harden.Harden(o.Plan, base, o.granting(out))
	if err != nil {
		return out, err
	}
	if out.Spec, err = spec.under(hardened); err != nil {
		return out, err
	}
	return o.holding(out.Grants, out)
}

// decider asks for who decides about the container's grants.
func (o Options) decider(out *Outcome) error {
	if out.Left {
		return o.leave(out)
	}
	return o.reach(out)
}

// granting has the agent answer a container, where that is needed, or leaves
// AF_ALG open to it.
func (o Options) granting(out Outcome) harden.Options {
	e := o.engine()
	e.Grants = out.Grants
	decided := len(o.Plan.WithAlgorithms(out.Grants)) > 0
	if out.Left {
		e.Standing = append(e.Standing, out.Grants...) // leave sees to them
	} else if decided || out.Brokered {
		e.Broker = o.Agent
	}
	if out.Brokered {
		e.Socketcall, e.Standing = harden.SocketcallBroker, nil
	}
	for _, g := range o.Plan.ZeroCopyGaps(decided) {
		e.Standing = append(e.Standing, g.Name) // denyZeroCopy sees to it
	}
	return e
}

// Ahead hardens and proves the profile of containers that are still to come,
// and hold these rules, so that none of them waits for it: o.Memo keeps it. The
// base has no conditions; nil is that of a container without one.
func (o Options) Ahead(base *profile.Profile, grants []string, brokered bool) error {
	if base == nil {
		base = profile.AllowAll(o.Arch)
	}
	out := Outcome{Grants: grants, Brokered: brokered || o.Socketcall == harden.SocketcallBroker}
	hardened, _, err := harden.Harden(o.Plan, base, o.granting(out))
	if err != nil {
		return err
	}
	out.Brokered = true // where it is not, less is proved
	_, err = o.prove(hardened, out)
	return err
}

// ProveAhead proves a profile that a container will start under as it is, if it
// holds these rules.
func (o Options) ProveAhead(p *profile.Profile, grants []string) error {
	if p == nil {
		return errors.New("there is no seccomp profile to prove")
	}
	_, err := o.prove(p, Outcome{Grants: grants, Brokered: true})
	return err
}

// Check is the gate: it proves that a spec which nobody will change any more is
// closed, except for what the container is granted.
func (o Options) Check(spec *Spec, c plan.Container) (Outcome, error) {
	out, err := o.begin(spec, c)
	if err != nil {
		return out, err
	}
	if spec.Seccomp == nil {
		if o.Plan.Unconfined.MayBeFree() {
			return o.unconfined(out, spec)
		}
		return out, refuse("the container has no seccomp profile (privileged, or seccomp=unconfined), and this hook cannot give it one: start it with a profile, have it hardened (afalg-policy install), or say containers: unconfined: allow in the policy")
	}
	if out.Left = out.Left && spec.Seccomp.ListenerPath == ""; out.Left {
		if err := o.leave(&out); err != nil {
			return out, err
		}
	}
	held, err := o.prove(spec.Seccomp, out)
	if err != nil {
		return out, err
	}
	return o.holding(held, out)
}

// prove proves a profile closed, or left to the agent with no other grants
// than these, and socketcall only if that may be; or open for the kernel half. It
// returns the grants that the container has under the profile.
func (o Options) prove(p *profile.Profile, out Outcome) (held []string, err error) {
	e := o.engine()
	held = o.undecided(out.Grants)
	if out.Left {
		held = out.Grants
	}
	if p.ListenerPath != "" {
		if held, err = o.ours(p, out.Grants); err != nil {
			return nil, err
		}
		if !out.Brokered && slices.ContainsFunc(p.Syscalls, leavesSocketcall) {
			return nil, refuse("the seccomp profile leaves socketcall to the agent, which the policy does not grant to this container: name the container in a grant with socketcall: broker")
		}
		e.Broker = o.Agent
	}
	e.Grants = held
	switch err := harden.Prove(o.Plan, p, e); {
	case errors.Is(err, harden.ErrNotKept):
		return nil, err
	case err != nil:
		return nil, refuse("the container's seccomp profile does not close AF_ALG: %v; harden it (afalg-policy generate seccomp --base FILE), or have it hardened for every container (afalg-policy install)", err)
	}
	return held, nil
}

func leavesSocketcall(r profile.Rule) bool {
	return r.Action == specs.ActNotify && slices.Contains(r.Names, "socketcall")
}

// ours reports whether a listener is the agent's, and asks it for no more than
// the container holds. It returns what it asks for.
func (o Options) ours(p *profile.Profile, grants []string) ([]string, error) {
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
