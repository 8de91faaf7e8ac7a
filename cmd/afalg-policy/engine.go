package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/learn"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
)

// engine is a broker with what is around it: who callers are, what is told of
// decisions, what is learned.
type engine struct {
	*brokerFlags
	t        *tui
	broker   *broker.Broker
	observer broker.Observer
	subjects *subject.Reader
	log      *telemetry.Log
	recorder *learn.Recorder    // nil unless learning
	saved    bool               // what it recorded, once
	metrics  *telemetry.Metrics // nil unless served
	plan     atomic.Pointer[plan.Plan]
	names    atomic.Pointer[map[uint32]string] // of the users in the plan
	closers  []func()                          // the last one first
}

// engineOptions are what run and agent differ in.
type engineOptions struct {
	pairs   *broker.Pairs
	sockets *broker.Sockets
	// terse logs denials alone, where no log file is named.
	terse bool
	// digests has the digest of every caller computed, not only of those whose
	// digest a rule asks for: nobody can be made to hash what does not matter.
	digests bool
}

// open makes an engine for a plan.
func (b *brokerFlags) open(t *tui, p *plan.Plan, o engineOptions) (*engine, error) {
	e := &engine{brokerFlags: b, t: t}
	if err := e.open(p, o); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *engine) open(p *plan.Plan, o engineOptions) error {
	e.setPlan(p)
	e.closers = append(e.closers, o.pairs.Close)
	if err := e.observe(o.terse); err != nil {
		return err
	}
	reading := subject.Options{Digests: digestsKept, Units: p.Asks("unit"), Recent: broker.Recent}
	if !o.digests && e.recorder == nil {
		reading.Wanted = e.wantsDigest
	}
	var err error
	if e.subjects, err = subject.NewReader(reading); err != nil {
		return hostError("%w", err)
	}
	e.closers = append(e.closers, e.subjects.Close)
	e.broker, err = broker.New(broker.Options{
		Subjects: e.subjects, Pairs: o.pairs, Sockets: o.sockets, UserName: e.userName, Observer: e.observer,
	})
	if err != nil {
		return hostError("%w", err)
	}
	e.closers = append(e.closers, e.broker.Close)
	return nil
}

// needsBroker tells whether this kernel can do what a broker does.
func needsBroker() error {
	err := kernel.Require("answering a trapped call with a descriptor", kernel.Version{Major: 5, Minor: 14})
	if err != nil {
		return hostError("%w", err)
	}
	return nil
}

func (e *engine) close() {
	for _, c := range slices.Backward(e.closers) {
		c()
	}
}

// observe opens what decisions are told to: the log, the metrics, and what is
// learned.
func (e *engine) observe(terse bool) error {
	var out io.Writer = e.t.err
	if e.Log != "" {
		f, err := os.OpenFile(e.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, logMode)
		if err != nil {
			return hostError("open the log: %w", err)
		}
		e.closers = append(e.closers, func() { f.Close() })
		out, terse = f, false
	}
	e.log = telemetry.NewLog(out, telemetry.LogOptions{DeniedOnly: terse})
	e.closers = append(e.closers, func() { e.finish(e.log.Close) })
	observers := []broker.Observer{e.log}
	if e.Metrics != "" {
		if err := e.serveMetrics(); err != nil {
			return err
		}
		observers = append(observers, e.metrics)
	}
	if e.Learn != "" {
		e.recorder = &learn.Recorder{}
		observers = append(observers, learner{recorder: e.recorder})
	}
	e.observer = telemetry.Multi(observers...)
	return nil
}

const (
	logMode = 0o600
	// digestsKept is how many executables have their digest kept.
	digestsKept = 256
	closeTime   = 2 * time.Second
)

// finish gives the log's writer a moment.
func (e *engine) finish(log func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := log(ctx); err != nil {
		e.t.notef("afalg-policy: %v", err)
	}
}

func (e *engine) serveMetrics() error {
	l, err := telemetry.Listen(e.Metrics)
	if err != nil {
		return hostError("serve metrics: %w", err)
	}
	e.metrics = telemetry.NewMetrics(buildInfo().Version)
	e.metrics.SetPolicy(e.plan.Load().Digest)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := e.metrics.Serve(ctx, l); err != nil {
			e.t.notef("afalg-policy: serve metrics: %v", err)
		}
	}()
	e.closers = append(e.closers, func() { stop(); <-served })
	return nil
}

// setPlan takes a policy's plan; each workload gets its part of it by granted.
func (e *engine) setPlan(p *plan.Plan) {
	names := map[uint32]string{}
	for _, rule := range p.Rules {
		for _, name := range rule.Users {
			u, err := user.Lookup(name)
			if err != nil {
				continue // a number, or a user that this host does not have
			}
			if uid, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
				names[uint32(uid)] = name
			}
		}
	}
	e.names.Store(&names)
	e.plan.Store(p)
	if e.subjects != nil {
		e.subjects.SetUnits(p.Asks("unit"))
	}
	if e.metrics != nil {
		e.metrics.SetPolicy(p.Digest)
	}
}

func (e *engine) userName(uid uint32) string { return (*e.names.Load())[uid] }

// wantsDigest tells whether a rule asks for the digest of an executable.
func (e *engine) wantsDigest(path string) bool {
	for _, rule := range e.plan.Load().Rules {
		for _, b := range rule.Binaries {
			if b.Path == path && b.SHA256 != "" {
				return true
			}
		}
	}
	return false
}

// granted is what a workload with these grants may do, and which of them the
// policy does not have.
func (e *engine) granted(grants []string) (*plan.Plan, []string) {
	p := e.plan.Load()
	if e.recorder == nil {
		return p.GrantedKnown(grants)
	}
	return e.everything(p), nil
}

// everything is the plan while learning: every type, but for those denied.
func (e *engine) everything(p *plan.Plan) *plan.Plan {
	rule := policy.Rule{Name: "learning", Anyone: true}
	for _, t := range afalg.Types() {
		if !slices.Contains(e.DenyTypes, string(t)) {
			rule.Algorithms = append(rule.Algorithms, policy.Algorithm{Algorithm: afalg.Algorithm{Type: t, Name: afalg.AnyName}})
		}
	}
	open := *p
	open.Rules = []policy.Rule{rule}
	return &open
}

// serve answers the only workload's calls until it ends.
func (e *engine) serve(l *notify.Listener, grants []string) error {
	p, _ := e.granted(grants)
	return e.broker.Serve(context.Background(), l, broker.NewWorkload("", p))
}

// learner records what was used: what was bound, that is. What the kernel
// refused is refused without a rule as well.
type learner struct {
	recorder *learn.Recorder
}

func (l learner) Decided(r broker.Record) {
	if r.Call != "bind" || !r.Allowed || r.Errno != 0 {
		return
	}
	kind, name, _ := strings.Cut(r.Algorithm, ":")
	l.recorder.Record(learn.Use{
		Binary: r.Binary, SHA256: r.SHA256,
		Algorithm: afalg.Algorithm{Type: afalg.Type(kind), Name: name},
	})
}

func (learner) Answered(string, time.Duration) {}
func (learner) Sessions(int)                   {}
func (learner) Failed(string, error)           {}

// save writes what was logged and learned so far.
func (e *engine) save() error {
	e.finish(e.log.Flush)
	if n := e.log.Untold(); n > 0 {
		e.t.notef("afalg-policy: %s could not be logged", count(int(n), "decision"))
	}
	if e.recorder == nil {
		return nil
	}
	text := e.recorder.File("learned", "made by "+toolName()+" from what was used")
	if err := writeFile(e.Learn, text); err != nil {
		return fmt.Errorf("what was learned is lost: %w", err)
	}
	if !e.saved {
		e.t.notef("learned: %s; nothing was enforced%s", e.Learn, e.exceptions())
	}
	e.saved = true
	return nil
}
