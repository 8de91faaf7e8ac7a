package probe

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
)

// Options say what to ask, and how.
type Options struct {
	Routes    []afalg.Route   // all if empty
	Algorithm afalg.Algorithm // to bind on an obtained socket; hash:sha256 if zero
	Classes   []Class         // to ask about besides
	Load      bool            // allow calls that may load kernel modules
	Child     []string        // arguments that make this binary call Answer with those that follow
	Timeout   time.Duration   // for one child; 20 s if zero
}

// Verdict is the state of a route.
type Verdict string

const (
	Open        Verdict = "open"
	Loadable    Verdict = "loadable"
	Undecided   Verdict = "undecided"
	Absent      Verdict = "absent"
	Brokered    Verdict = "brokered"
	Closed      Verdict = "closed"
	Unavailable Verdict = "unavailable"
)

// byWorry lists the verdicts, the most worrying first.
var byWorry = []Verdict{Open, Loadable, Undecided, Absent, Brokered, Closed, Unavailable}

// Open reports whether a verdict counts as open: everything but a known denial.
func (v Verdict) Open() bool {
	switch v {
	case Absent, Brokered, Closed, Unavailable:
		return false
	}
	return true
}

// Filter is what the seccomp filters do with a call, as the gate shows.
type Filter string

const (
	Passes    Filter = "passes"
	Denies    Filter = "denies"
	Uncertain Filter = "unknown"
)

// Report holds the kernel's answers. Its JSON names are stable.
type Report struct {
	Kernel  string  `json:"kernel"`  // release
	Arch    string  `json:"arch"`    // GOARCH of the prober
	Seccomp Seccomp `json:"seccomp"` // of this process
	AFALG   AFALG   `json:"af_alg"`
	Load    bool    `json:"load"` // whether modules might be loaded
	Open    bool    `json:"-"`    // whether any route counts as open
	Routes  []Route `json:"routes"`
	// Classes are those of the policy, if one was given.
	Classes []ClassResult `json:"classes,omitempty"`
}

// AFALG is the kernel's AF_ALG as seen before any question.
type AFALG struct {
	State kernel.State `json:"state"`
	Why   string       `json:"why"`
}

// Route is the result for a route: that of its most worrying call.
type Route struct {
	Route afalg.Route `json:"route"`
	Outcome
	Calls []Call `json:"calls,omitempty"`
}

// Call is the result for one call of a route.
type Call struct {
	Call string `json:"call"` // "i386 socketcall(1)"
	Outcome
}

// Outcome is a verdict and its evidence.
type Outcome struct {
	Verdict Verdict `json:"verdict"`
	// Errno is the symbolic error of the denial, or the signal (SIGSYS) by
	// which the filter killed, or empty.
	Errno string `json:"errno"`
	// Control is "ok", or the failure of the positive control, or empty where
	// there is none.
	Control string `json:"control"`
	Filter  Filter `json:"filter"`
	// Bind is empty without a socket, "ok", an errno, or "not asked" where
	// asking might load a module.
	Bind   string `json:"bind,omitempty"`
	Detail string `json:"detail"` // the meaning, for people
}

// Run asks the kernel. The error means that it could not ask at all; a policy's
// answer is in the report.
func Run(ctx context.Context, opt Options) (Report, error) {
	opt = opt.withDefaults()
	for _, r := range opt.Routes {
		if !slices.ContainsFunc(afalg.Routes(), func(i afalg.RouteInfo) bool { return i.Route == r }) {
			return Report{}, fmt.Errorf("route %q: there is no such route", r)
		}
	}
	release, err := kernel.Release()
	if err != nil {
		return Report{}, err
	}
	host := kernel.Running()
	before := host.AFALG(release)
	report := Report{Kernel: release, Arch: runtime.GOARCH, Seccomp: seccompOf("/proc/self"), AFALG: AFALG{before.State, before.Why}, Load: opt.Load}
	p := prober{opt: opt, host: host, release: release, real: opt.Load || !before.MayLoad()}
	p.bind = opt.Load || before.State == kernel.Absent ||
		host.HasModule("algif_"+string(opt.Algorithm.Type)) && host.HasAlgorithm(opt.Algorithm.Name)
	for _, info := range afalg.Routes() {
		if len(opt.Routes) > 0 && !slices.Contains(opt.Routes, info.Route) {
			continue
		}
		r, err := p.route(ctx, info.Route)
		if err != nil {
			return Report{}, fmt.Errorf("asking the kernel for route %s: %w", info.Route, err)
		}
		report.Open = report.Open || r.Verdict.Open()
		report.Routes = append(report.Routes, r)
	}
	if report.Classes, err = p.classes(ctx); err != nil {
		return Report{}, err
	}
	for _, c := range report.Classes {
		report.Open = report.Open || c.Verdict.Open()
	}
	return report, nil
}

func (o Options) withDefaults() Options {
	if o.Algorithm == (afalg.Algorithm{}) {
		o.Algorithm = afalg.Algorithm{Type: afalg.Hash, Name: "sha256"}
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	return o
}

// prober is the state of one run.
type prober struct {
	opt        Options
	host       kernel.View
	release    string
	real, bind bool // whether real calls and binds are made
}

func (p *prober) route(ctx context.Context, route afalg.Route) (Route, error) {
	r := Route{Route: route}
	if route == afalg.RouteInherited {
		r.Outcome = inherited(afalg.Family)
		return r, nil
	}
	abis := machine(runtime.GOARCH)
	if len(abis) == 0 {
		r.Outcome = Outcome{Verdict: Undecided, Filter: Uncertain, Detail: "not available on this architecture build"}
		return r, nil
	}
	calls := callsOf(abis, route)
	var questions []ask
	for _, c := range calls {
		questions = append(questions, p.asks(c).list()...)
	}
	answers, err := p.ask(ctx, questions)
	if err != nil {
		return r, err
	}
	f := p.facts()
	for _, c := range calls {
		asks := p.asks(c)
		n := len(asks.list())
		r.Calls = append(r.Calls, Call{c.String(), outcome(c, asks, answers[:n], f)})
		answers = answers[n:]
	}
	r.Outcome = worst(r.Calls)
	return r, nil
}

func outcome(c call, a asks, answers []answer, f facts) Outcome {
	if !c.reachable() {
		return unreachable(c)
	}
	return judge(a.evidence(c, answers), f)
}

// worst returns the outcome of the most worrying call. A route without calls
// does not exist on this machine.
func worst(calls []Call) Outcome {
	if len(calls) == 0 {
		return Outcome{Verdict: Unavailable, Filter: Uncertain, Detail: "this machine's ABIs have no such call"}
	}
	worst := slices.MinFunc(calls, func(a, b Call) int {
		return slices.Index(byWorry, a.Verdict) - slices.Index(byWorry, b.Verdict)
	})
	if len(calls) > 1 {
		worst.Detail = worst.Call + ": " + worst.Detail
	}
	return worst.Outcome
}

// facts are read after the calls, which may have loaded the module.
func (p *prober) facts() facts {
	return facts{
		registered: p.host.AFALG(p.release).Registered(),
		load:       p.opt.Load,
		ioUring:    sync.OnceValue(p.host.HasIOUring), // each call of the route asks, and it may read all of kallsyms
		algorithm:  p.opt.Algorithm.String(),
	}
}
