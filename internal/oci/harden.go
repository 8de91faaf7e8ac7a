package oci

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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

// Refused says that a container is not started. It tells what to do.
type Refused struct{ Text string }

func (e *Refused) Error() string { return e.Text }

func refuse(format string, args ...any) error { return &Refused{fmt.Sprintf(format, args...)} }

// Harden changes linux.seccomp of a spec so that the container has what it is
// granted and nothing else. Every other byte stays. What is returned was
// compiled as the runtimes do, and the programs asked every route.
func (o Options) Harden(spec *Spec, c plan.Container) (Outcome, error) {
	if o.Plan == nil {
		return Outcome{}, errors.New("there is no policy")
	}
	out := Outcome{Spec: spec.Text, Verdict: Closed}
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
	if err := o.prove(spec.Seccomp, out.Grants); err != nil {
		return out, fmt.Errorf("the profile has a listener already: %w", err)
	}
	if len(out.Grants) > 0 {
		out.Verdict = Granted
	}
	return out, nil
}

// hardened generates the profile.
func (o Options) hardened(out Outcome, spec *Spec, g gen.SeccompOptions) (Outcome, error) {
	if err := o.reach(&out); err != nil {
		return out, err
	}
	if len(out.Grants) > 0 || o.Brokered {
		g.Broker, g.Grants = o.Agent, out.Grants
		out.Verdict = Granted
	}
	if o.Brokered {
		g.Socketcall = gen.SocketcallBroker
	}
	if len(out.Grants) == 0 {
		out.Verdict = Closed
	}
	text, _, err := spec.config.Harden(o.Plan, g)
	if err != nil {
		return out, err
	}
	out.Spec = text
	return out, nil
}

// reach asks whether an agent listens, if one is needed: the runtime would
// fail, and not say what for.
func (o Options) reach(out *Outcome) error {
	if len(out.Grants) == 0 && !o.Brokered {
		return nil
	}
	if len(out.Grants) > 0 && !heard(o.Agent) {
		out.Reason = fmt.Sprintf("the agent on %s is another user's and takes no grants from this one, so that it starts without them", o.Agent)
		out.Grants = nil
		return o.reach(out)
	}
	err := dial(o.Agent)
	switch {
	case err == nil:
		return nil
	case o.DenyWithoutAgent && !o.Brokered:
		out.Reason = fmt.Sprintf("no agent answers on %s (%v), so that it starts without its grants", o.Agent, err)
		out.Grants = nil
		return nil
	default:
		return refuse("no agent answers on %s: %v; start it (systemctl start afalg-policy-agent), or use --on-agent-down deny, which starts containers without what they are granted", o.Agent, err)
	}
}

// heard tells whether the agent on a socket listens to what this user says of
// grants: the host's root, and the agent's own user.
func heard(socket string) bool {
	if isHostRoot() {
		return true
	}
	var st unix.Stat_t
	err := unix.Stat(socket, &st)
	return errors.Is(err, unix.ENOENT) || err == nil && st.Uid == uint32(unix.Geteuid())
}

// isHostRoot tells root of the machine from root of a user namespace.
func isHostRoot() bool {
	uids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && unix.Geteuid() == 0 && strings.Join(strings.Fields(string(uids)), " ") == "0 0 4294967295"
}

const dialTime = 2 * time.Second

func dial(socket string) error {
	c, err := net.DialTimeout("unix", socket, dialTime)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return err
	}
	return c.Close()
}

// Check is the gate: it proves that a spec which nobody will change any more is
// closed, but for what the container is granted.
func (o Options) Check(spec *Spec, c plan.Container) (Outcome, error) {
	if o.Plan == nil {
		return Outcome{}, errors.New("there is no policy")
	}
	out := Outcome{Spec: spec.Text, Verdict: Closed}
	out.Grants, out.Refused = o.Plan.GrantsOf(c)
	if spec.Seccomp == nil {
		if o.Plan.Unconfined == plan.Allow {
			return o.unconfined(out, spec, o.generator())
		}
		return out, refuse("the container has no seccomp profile (privileged, or seccomp=unconfined), and this hook cannot give it one: start it with a profile, have it hardened (afalg-policy install), or say containers: unconfined: allow in the policy")
	}
	if err := o.prove(spec.Seccomp, out.Grants); err != nil {
		return out, err
	}
	if spec.Seccomp.ListenerPath == "" {
		out.Grants = nil
	}
	if len(out.Grants) > 0 {
		out.Verdict = Granted
	}
	return out, nil
}

// prove proves a profile closed, or left to the agent with no other grants
// than these.
func (o Options) prove(p *specs.LinuxSeccomp, grants []string) error {
	g := o.generator()
	if p.ListenerPath != "" {
		if err := o.ours(p, grants); err != nil {
			return err
		}
		g.Broker = o.Agent
	}
	if err := gen.Prove(o.Plan, p, g); err != nil {
		return refuse("the container's seccomp profile does not close AF_ALG: %v; harden it (afalg-policy generate seccomp --base FILE), or have it hardened for every container (afalg-policy install)", err)
	}
	return nil
}

// ours tells whether a listener is the agent's, and asks it for no more than
// the container holds.
func (o Options) ours(p *specs.LinuxSeccomp, grants []string) error {
	if p.ListenerPath != o.Agent {
		return refuse("the seccomp profile hands calls to the listener %q, and what it answers cannot be proved; the agent of this host is %s", p.ListenerPath, o.Agent)
	}
	m, err := plan.ParseMetadata(p.ListenerMetadata)
	if err != nil {
		return refuse("the seccomp profile: %v", err)
	}
	for _, name := range m.Grants {
		if !slices.Contains(grants, name) {
			return refuse("the seccomp profile claims the rule %q, which the policy does not grant to this container: a profile grants nothing by itself; name the container in containers: grants: of the policy", name)
		}
	}
	return nil
}

// Native is the machine of this program.
func Native(goarch string) (specs.Arch, error) { return profile.ArchByName(goarch) }
