package nri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// question is what a container's start depends on.
type question struct {
	seccomp   *specs.LinuxSeccomp // as the runtime says it; nil for a container without a profile
	config    profile.Config
	container plan.Container
}

// base is the profile to harden, and whether NRI could not carry what comes of it.
func (q question) base() (base *specs.LinuxSeccomp, lossy bool) {
	if q.seccomp == nil {
		return nil, false
	}
	base = new(*q.seccomp)
	return base, plainErrno(base)
}

// answer hardens the container's profile, and returns the one to give to the runtime;
// nil if the container keeps its own.
func (q question) answer(o oci.Options) (oci.Outcome, *api.LinuxSeccomp, error) {
	base, lossy := q.base()
	spec, err := oci.SpecOf(base, q.config)
	if err != nil {
		return oci.Outcome{}, nil, err
	}
	if lossy {
		out, err := q.asItIs(o, spec)
		return out, nil, err
	}
	out, err := o.Harden(spec, q.container)
	if err != nil || out.Spec == spec || out.Spec.Seccomp == nil {
		return out, nil, err
	}
	given, err := carried(out.Spec.Seccomp)
	return out, given, err
}

// asItIs lets a container keep a profile that NRI cannot carry, if that one is closed.
func (q question) asItIs(o oci.Options, spec *oci.Spec) (oci.Outcome, error) {
	rules, _ := o.Plan.GrantsOf(q.container)
	if spec.Seccomp != nil && spec.Seccomp.ListenerPath == "" && (len(rules) > 0 || o.Plan.BrokersSocketcall(q.container)) {
		return oci.Outcome{}, errLossy
	}
	out, err := o.Check(spec, q.container)
	if _, refused := errors.AsType[*oci.NotStartedError](err); refused {
		err = fmt.Errorf("%w: %w", errLossy, err)
	}
	return out, err
}

// proof is what is to be proved for the container.
func (q question) proof(o oci.Options) Proof {
	p := o.Plan
	base, lossy := q.base()
	rules, _ := p.GrantsOf(q.container)
	return Proof{
		Agent: o.Agent, Policy: p.Digest, Seccomp: base, Whole: lossy || base != nil && base.ListenerPath != "",
		Rules: rules, Brokered: p.BrokersSocketcall(q.container),
	}
}

// Proof asks another process of this program to harden and prove a profile, and to
// keep what it found.
type Proof struct {
	Agent    string              `json:"agent"`             // its socket
	Policy   string              `json:"policy"`            // digest of the one that is in force
	Seccomp  *specs.LinuxSeccomp `json:"seccomp,omitempty"` // none for a container without a profile
	Whole    bool                `json:"whole,omitempty"`   // the profile is not hardened: it is to be closed as it is
	Rules    []string            `json:"rules,omitempty"`
	Brokered bool                `json:"brokered,omitempty"` // socketcall is left to the agent
}

// Do is what that process does.
func (f Proof) Do(o oci.Options) error {
	if o.Plan.Digest != f.Policy {
		return errors.New("the policy has changed since the agent read it: systemctl reload afalg-policy-agent")
	}
	spec, err := oci.SpecOf(f.Seccomp, profile.Config{})
	if err != nil {
		return err
	}
	if f.Whole {
		err := o.ProveAhead(spec.Seccomp, f.Rules)
		if err != nil && f.Seccomp.ListenerPath == "" {
			return fmt.Errorf("%w: %w", errLossy, err)
		}
		return err
	}
	return o.Ahead(spec.Seccomp, f.Rules, f.Brokered)
}

// Prover has a proof made in another process. It has limits of its own, and ends with
// the context.
type Prover func(context.Context, Proof) error

// prover has each proof made once, however often it is asked for.
type prover struct {
	prove Prover
	slots chan struct{}

	mu      sync.Mutex
	serving context.Context
	running map[string]*proving
}

type proving struct {
	ended chan struct{}
	err   error
}

// Limits of what is proved at a time, and of what waits for that.
const (
	mostProving = 2
	mostWaiting = 64
)

func newProver(prove Prover) *prover {
	return &prover{prove: prove, slots: make(chan struct{}, mostProving), serving: context.Background(), running: map[string]*proving{}}
}

// serve ends proofs with a context.
func (p *prover) serve(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = ctx
}

// ask waits for a proof until the context ends. The proof goes on.
func (p *prover) ask(ctx context.Context, f Proof) error {
	r, err := p.begin(f)
	if err != nil {
		return err
	}
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *prover) begin(f Proof) (*proving, error) {
	key, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.running[string(key)]; r != nil {
		return r, nil
	}
	if len(p.running) >= mostWaiting {
		return nil, fmt.Errorf("%d seccomp profiles wait to be proved, which are as many as may", mostWaiting)
	}
	r := &proving{ended: make(chan struct{})}
	p.running[string(key)] = r
	go p.run(p.serving, string(key), f, r)
	return r, nil
}

func (p *prover) run(ctx context.Context, key string, f Proof, r *proving) {
	p.slots <- struct{}{}
	r.err = p.prove(ctx, f)
	<-p.slots
	p.mu.Lock()
	delete(p.running, key)
	p.mu.Unlock()
	close(r.ended)
}
