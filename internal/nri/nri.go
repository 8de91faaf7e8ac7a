// Package nri is the plugin by which containerd asks about each container of a pod
// before it makes it, over its Node Resource Interface. The plugin hardens the
// container's profile for the rules that it holds, or refuses the container.
//
// A runtime asks twice. CreateContainer gets the profile; ValidateContainerAdjustment
// sees what all plugins made of the container, and refuses one whose profile is not
// the one that was proved. The second question is what keeps a container from
// starting open: a runtime goes on without an answer to the first that does not come
// in time, or whose plugin died, and NRI up to 0.12.3 does not go on without an
// answer to the second. From 0.12.4 on the failure policy says the same.
package nri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/afalg-policy/afalg-policy/internal/admit"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// What the plugin is called. A runtime asks plugins in the order of their indexes, and
// no other may set a profile.
const (
	Name   = kube.NRIPlugin
	Index  = "90"
	Socket = api.DefaultSocketPath
)

// Options say what a plugin answers by. All are needed, except where it says so.
type Options struct {
	Socket string            // of the runtime
	Plan   func() *plan.Plan // that is in force
	OCI    oci.Options       // its Plan, Agent and KeptOnly are set here
	Prove  Prover            // has a profile hardened and proved in another process
	Log    *admit.Log        // of decisions; may be nil
	Bases  kept.Bases        // profiles that were seen
	Given  kept.Given        // profiles that were given
	Ahead  func()            // called when a profile came for the first time; may be nil
	Told   Observer          // may be nil
	Note   func(text string) // for people
	State  func(State)       // is called at each change; may be nil
}

// Observer counts.
type Observer interface {
	Connected(bool)
	Answered(verdict string, took time.Duration)
	Unproved(containers int) // running ones that were not given their profile
}

// StateName is the file in the agent's directory that holds the State.
const StateName = "nri.json"

// State is what becomes of the connection, for people and programs.
type State struct {
	Connected bool     `json:"connected"`
	Runtime   string   `json:"runtime,omitempty"`
	Timeout   string   `json:"request-timeout,omitempty"` // after which the runtime goes on
	Reason    string   `json:"reason,omitempty"`          // why it is not connected
	Unproved  []string `json:"unproved,omitempty"`        // running containers that were not given their profile
}

// Plugin is one plugin, over as many connections as it takes.
type Plugin struct {
	o      Options
	prover *prover
	begun  atomic.Int64 // when the question that is answered now was asked; 0: none is

	mu    sync.Mutex
	state State
}

// New makes a plugin, which Run connects.
func New(o Options) *Plugin {
	if o.Ahead == nil {
		o.Ahead = func() {}
	}
	if o.State == nil {
		o.State = func(State) {}
	}
	if o.Told == nil {
		o.Told = nobody{}
	}
	return &Plugin{o: o, prover: newProver(o.Prove)}
}

type nobody struct{}

func (nobody) Connected(bool)                 {}
func (nobody) Answered(string, time.Duration) {}
func (nobody) Unproved(int)                   {}

// again is how soon a lost connection is made again. Until then a runtime that
// requires the plugin refuses containers.
const again = 200 * time.Millisecond

// Run stays connected to the runtime, until the context ends, and has the agent on
// that socket decide about grants. The runtime's socket is looked up each time: a
// runtime that starts makes another one.
func (p *Plugin) Run(ctx context.Context, agent string) {
	p.o.OCI.Agent = agent
	proofs, end := context.WithCancel(context.WithoutCancel(ctx)) // an answer that is waited for may need one
	defer end()
	p.prover.serve(proofs)
	said := ""
	for ctx.Err() == nil {
		err := p.connect(ctx)
		if ctx.Err() != nil {
			break
		}
		reason := fmt.Sprintf("the connection to %s ended", p.o.Socket)
		if err != nil {
			reason = err.Error()
		}
		p.change(func(s *State) { *s = State{Reason: reason, Unproved: s.Unproved} })
		p.o.Told.Connected(false)
		if reason != said {
			p.o.Note("NRI: " + reason)
			said = reason
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	p.change(func(s *State) { *s = State{Reason: "the agent has ended", Unproved: s.Unproved} })
}

func (p *Plugin) change(how func(*State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how(&p.state)
	p.o.State(p.state)
}

// connect serves one connection. A runtime that the plugin refuses is the error.
func (p *Plugin) connect(ctx context.Context) error {
	s := &session{p: p, answers: map[string]*answer{}}
	st, err := stub.New(s,
		stub.WithSocketPath(p.o.Socket), stub.WithPluginName(Name), stub.WithPluginIdx(Index),
		stub.WithDialer(func(path string) (net.Conn, error) { return net.DialTimeout("unix", path, dialTime) }),
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true, KeepConnected: true}),
		stub.WithLogger(quiet{}),
		stub.WithOnClose(func() {}), // the default ends the process
	)
	if err != nil {
		return err
	}
	s.timeout = st.RequestTimeout
	served, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		s.settle()
		stop()
	})()
	err = st.Run(served)
	var refused *RuntimeError
	if errors.As(s.refused, &refused) {
		return refused
	}
	return err
}

const dialTime = 2 * time.Second

// quiet keeps the library's own log: what goes wrong is an error as well.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}

// RuntimeError is a runtime that a plugin can do harm to.
type RuntimeError struct{ Name, Version, Why string }

func (e *RuntimeError) Error() string {
	return fmt.Sprintf("%s %s: %s; install the wrapper runtime there (afalg-policy install containerd, or crio), and start the agent without --nri", e.Name, e.Version, e.Why)
}

// Older runtimes do not show plugins the profile, and a plugin that replaces what
// it does not see may open what was closed.
const (
	leastMajor = 2
	leastMinor = 3
)

var versionForm = regexp.MustCompile(`^v?([0-9]{1,4})\.([0-9]{1,4})`)

// CheckRuntime refuses a runtime whose containers a plugin cannot harden without
// doing harm.
func CheckRuntime(name, version string) error {
	refuse := func(why string) error { return &RuntimeError{name, version, why} }
	if name != "containerd" {
		return refuse("it shows plugins no seccomp profile, so that a plugin could open what a profile closes")
	}
	m := versionForm.FindStringSubmatch(version)
	if m == nil {
		return refuse("its version is not known, and plugins see profiles from containerd 2.3 on")
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < leastMajor || major == leastMajor && minor < leastMinor {
		return refuse("it shows plugins no seccomp profile, so that a plugin could open what a profile closes; containerd does from 2.3 on")
	}
	return nil
}

// Alive says what the watchdog is to know: that a question is not answered for
// longer than any takes.
func (p *Plugin) Alive() error {
	if at := p.begun.Load(); at != 0 && time.Since(time.Unix(0, at)) > stuck {
		return fmt.Errorf("a question of the runtime is not answered for %v", stuck)
	}
	return nil
}

const stuck = 30 * time.Second
