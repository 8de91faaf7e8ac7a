// Package decider puts a broker together with what it needs to decide and to
// tell: the policy, which can be replaced, who callers are, the log, the metrics,
// and what is learned.
package decider

import (
	"context"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/learn"
	"github.com/afalg-policy/afalg-policy/internal/logfile"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Decider is a broker with its readers of callers, its records of decisions, and its
// learner.
type Decider struct {
	o        Options
	Broker   *broker.Broker
	Metrics  *telemetry.Metrics // nil unless served
	observer plan.Observer
	subjects *subject.Reader
	log      *telemetry.Log
	recorder *learn.Recorder // nil unless learning
	plan     atomic.Pointer[plan.Plan]
	names    atomic.Pointer[map[uint32]string] // of the users in the plan
	closers  []func()                          // the last one first
}

// Options say what a decider is made of, and whom it tells.
type Options struct {
	Pairs   *broker.Pairs
	Sockets *broker.Sockets
	// Log is a file to append every decision to, as a line of JSON; without it
	// they go to Stream.
	Log    string
	Stream io.Writer
	// Terse logs denials alone, where no log file is named.
	Terse bool
	// Metrics is the address at which they are served: "unix:/PATH", or a loopback
	// address with a port; none if empty. Version is that of this program.
	Metrics, Version string
	// Learn enforces nothing except DenyTypes, and records what is used.
	Learn     bool
	DenyTypes []string
	// Digests has the digest of every caller computed, not only of those whose
	// digest a rule asks for: nobody can be made to hash what does not matter.
	Digests bool
	// Alone is a decider of one workload, which has as many sessions at a time as
	// there are descriptors for.
	Alone bool
	Note  func(text string) // of what goes wrong while it works
}

// New makes a decider for a plan. An error is something that this host cannot do.
// It closes the pairs, as Close does.
func New(p *plan.Plan, o Options) (*Decider, error) {
	d := &Decider{o: o}
	if err := d.open(p); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Decider) open(p *plan.Plan) error {
	d.SetPlan(p)
	d.closers = append(d.closers, d.o.Pairs.Close)
	if err := d.observe(d.o.Terse); err != nil {
		return err
	}
	var used func([]broker.Caller, afalg.Algorithm)
	if d.recorder != nil {
		used = learner{d.recorder}.used
	}
	var err error
	d.subjects, err = subject.NewReader(subject.Options{Digests: digestsKept, Units: p.HasCondition("unit"), Recent: broker.Recent})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.subjects.Close)
	d.Broker, err = broker.New(broker.Options{
		Subjects: d.subjects, Pairs: d.o.Pairs, Sockets: d.o.Sockets, UserName: d.userName, Observer: d.observer, Used: used,
		EveryDigest: d.o.Digests || d.recorder != nil, Sessions: d.sessions(),
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.Broker.Close)
	return nil
}

// Supported says why this kernel cannot do what a broker does.
func Supported() error {
	return kernel.Require("answering a trapped call with a descriptor", kernel.Version{Major: 5, Minor: 14})
}

// Close ends it: the broker first, the log last.
func (d *Decider) Close() {
	for _, c := range slices.Backward(d.closers) {
		c()
	}
}

// observe opens what decisions are told to: the log, the metrics, and what is
// learned.
func (d *Decider) observe(terse bool) error {
	out := d.o.Stream
	if d.o.Log != "" {
		f, err := logfile.Open(d.o.Log, 0o600)
		if err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		d.closers = append(d.closers, func() { f.Close() })
		out, terse = f, false
	}
	d.log = telemetry.NewLog(out, telemetry.LogOptions{DeniedOnly: terse})
	d.closers = append(d.closers, func() { d.finish(d.log.Close) })
	observers := []plan.Observer{d.log}
	if d.o.Metrics != "" {
		if err := d.serveMetrics(); err != nil {
			return err
		}
		observers = append(observers, d.Metrics)
	}
	if d.o.Learn {
		d.recorder = &learn.Recorder{}
		observers = append(observers, learner{recorder: d.recorder})
	}
	d.observer = telemetry.Multi(observers...)
	return nil
}

const (
	// digestsKept is how many executables of a workload have their digest kept.
	digestsKept = 64
	closeTime   = 2 * time.Second
)

// finish gives the log's writer a moment.
func (d *Decider) finish(log func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := log(ctx); err != nil {
		d.o.Note(err.Error())
	}
}

func (d *Decider) serveMetrics() error {
	l, err := telemetry.Listen(d.o.Metrics)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	d.Metrics = telemetry.NewMetrics(d.o.Version)
	d.Metrics.SetPolicy(d.plan.Load().Digest)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := d.Metrics.Serve(ctx, l); err != nil {
			d.o.Note(fmt.Sprintf("serve metrics: %v", err))
		}
	}()
	d.closers = append(d.closers, func() { stop(); <-served })
	return nil
}

// SetPlan takes a policy's plan; each workload gets its part of it by Granted.
func (d *Decider) SetPlan(p *plan.Plan) {
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
	d.names.Store(&names)
	d.plan.Store(p)
	if d.subjects != nil {
		d.subjects.SetUnits(p.HasCondition("unit"))
	}
	if d.Metrics != nil {
		d.Metrics.SetPolicy(p.Digest)
	}
}

func (d *Decider) userName(uid uint32) string { return (*d.names.Load())[uid] }

// Granted is what a workload with these grants may do, and which of them the
// policy does not have.
func (d *Decider) Granted(grants []string) (*plan.Plan, []string) {
	p := d.plan.Load()
	if d.recorder == nil {
		return p.GrantedKnown(grants)
	}
	return d.everything(p), nil
}

// everything is the plan while learning: every type, except the denied ones.
func (d *Decider) everything(p *plan.Plan) *plan.Plan {
	rule := policy.Rule{Name: "learning", Anyone: true}
	for _, t := range afalg.Types() {
		if !slices.Contains(d.o.DenyTypes, string(t)) {
			rule.Algorithms = append(rule.Algorithms, policy.Algorithm{Algorithm: afalg.Algorithm{Type: t, Name: afalg.AnyName}})
		}
	}
	open := *p
	open.Rules = []policy.Rule{rule}
	return &open
}

// Serve answers the only workload's calls until it ends.
func (d *Decider) Serve(l *notify.Listener, grants []string) error {
	p, _ := d.Granted(grants)
	return d.Broker.Serve(context.Background(), l, broker.NewWorkload("", p))
}

// learner records what was bound, and what was used. It leaves out
// whatever the kernel refused: that is refused without a rule as well.
type learner struct {
	recorder *learn.Recorder
}

func (l learner) Decided(r plan.Record) {
	if r.Call != "bind" || !r.Allowed || r.Errno != 0 {
		return
	}
	kind, name, _ := strings.Cut(r.Algorithm, ":")
	l.recorder.Bound(learn.Use{
		Binary: r.Binary, SHA256: r.SHA256,
		Algorithm: afalg.Algorithm{Type: afalg.Type(kind), Name: name},
	})
}

func (l learner) used(callers []broker.Caller, algorithm afalg.Algorithm) {
	for _, c := range callers {
		l.recorder.Used(learn.Use{Binary: c.Binary, SHA256: c.SHA256, Algorithm: algorithm})
	}
}

func (learner) Answered(string, time.Duration) {}
func (learner) Sessions(int)                   {}
func (learner) Failed(string, error)           {}

// Failed passes a failure on to those who observe decisions.
func (d *Decider) Failed(what string, err error) { d.observer.Failed(what, err) }

// Flush gives what was decided so far a moment to be written.
func (d *Decider) Flush() {
	d.finish(d.log.Flush)
	if n := d.log.Untold(); n > 0 {
		d.o.Note(term.Count(int(n), "decision") + " could not be logged")
	}
}

// Learned is the policy of that name that allows what was used so far, with a
// comment, and how many rules it has; nil unless learning.
func (d *Decider) Learned(name, comment string) (text []byte, rules int) {
	if d.recorder == nil {
		return nil, 0
	}
	return d.recorder.File(name, comment), len(d.recorder.Policy(name).Rules)
}

// sessions is how many a workload may have at a time; 0 is the default.
func (d *Decider) sessions() int {
	if d.o.Alone {
		return sessionsAlone()
	}
	return 0
}

// sessionsAlone is how many sessions the only workload of a broker may have: as
// many as there are descriptors for. Nobody else is short of them then.
func sessionsAlone() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return sessionsWith(limit.Cur)
}

// sessionsWith divides descriptors: a session takes two, and the broker some
// besides. No command needs more than the most.
func sessionsWith(descriptors uint64) int {
	const besides, least, most = 256, 64, 1 << 16
	return int(max(min(descriptors, 2*most+besides), 2*least+besides)-besides) / 2
}
