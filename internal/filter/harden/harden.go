// Package harden closes AF_ALG in a seccomp profile, and proves it: that the
// programs which runtimes make of the result leave no route open, and answer
// everything else as those of the base do, except for what gaps name.
//
// It takes and returns profiles as values. Texts are for those who call it.
package harden

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Options are the inputs besides policy and profile.
type Options struct {
	Tool     string   // name and version of this program
	Grants   []string // policy rules that the workload holds
	Accept   []string // names of wider gaps that the user takes on
	Standing []string // such names, whether there is a gap of that name or not
	// Conditional keeps the conditions of the base in the result, which is then
	// proved for each machine that the base names. Otherwise the result is
	// resolved for Host.
	Conditional bool
	Socketcall  Socketcall
	// Broker is the socket of the agent, to which a runtime hands the listener.
	// With one, AF_ALG is decided at run time, for the rules in Grants alone.
	Broker string
	Host   profile.Host
	// Memo keeps what Harden and Prove found, of results without conditions; nil:
	// nothing is kept.
	Memo Memo
	// KeptOnly compiles and proves nothing: what Memo does not have is ErrNotKept. It
	// is for a process that answers others, which has work done elsewhere.
	KeptOnly bool
}

// ErrNotKept says that nobody has proved a profile yet.
var ErrNotKept = errors.New("this profile is not proved yet")

// Harden returns the profile with every route closed, and what the result
// cannot express of the policy. It was compiled as each runtime compiles it, and
// the programs were asked every route. The base is not changed.
func Harden(p *plan.Plan, base *profile.Profile, o Options) (*profile.Profile, []plan.Gap, error) {
	if err := base.Loadable(o.Host); err != nil {
		return nil, nil, err
	}
	if err := checkBase(base); err != nil {
		return nil, nil, err
	}
	if o.Conditional {
		if o.KeptOnly {
			return nil, nil, ErrNotKept
		}
		return harden(p, base, o)
	}
	if len(base.Caps()) == 0 {
		o.Host.Caps = nil
	}
	key := o.key("hardened", p, base)
	denied := deniedRules(p, o)
	if r, ok := o.recall(key); ok {
		return r.Profile, append(denied, r.Gaps...), nil
	}
	if o.KeptOnly {
		return nil, nil, ErrNotKept
	}
	hardened, gaps, err := harden(p, base, o)
	if err != nil {
		return nil, gaps, err
	}
	out, err := hardened.On(o.Host)
	if err == nil {
		others := slices.DeleteFunc(slices.Clone(gaps), func(g plan.Gap) bool {
			return slices.ContainsFunc(denied, func(d plan.Gap) bool { return g.String() == d.String() })
		})
		o.keep(key, remembered{out, others})
	}
	return out, gaps, err
}

// harden rewrites and proves. The program that libseccomp makes of the plain
// result may differ from what the profile says; then the calls are kept apart,
// which costs instructions, and proved again.
func harden(p *plan.Plan, base *profile.Profile, o Options) (*profile.Profile, []plan.Gap, error) {
	defer seccomp.Keep()()
	c, err := closingOf(p, base, o)
	if err != nil {
		return nil, nil, err
	}
	if c.socketcall == SocketcallBroker {
		base = c.reopenSocketcall(base)
	}
	held, err := o.held(p)
	if err != nil {
		return nil, nil, err
	}
	base = c.reopenClasses(base, plan.OpenedBy(held))
	hardened, gaps, err := c.hardenProved(p, base, o)
	if _, failed := errors.AsType[*proofError](err); !failed {
		return hardened, gaps, err
	}
	for _, again := range c.otherwise(base) {
		if other, otherGaps, err := again.hardenProved(p, base, o); err == nil {
			return other, otherGaps, nil
		}
	}
	return hardened, gaps, c.advise(base, err)
}

// otherwise lists how to harden where the plain way is not proved.
func (c closing) otherwise(base *profile.Profile) []closing {
	apart := c
	apart.apart = true
	ways := []closing{apart}
	if isPermissive(base.DefaultAction) {
		c.revive, apart.revive = true, true
		ways = append(ways, c, apart)
	}
	return ways
}

// proofError says that a result was not proved, or could not be compiled.
type proofError struct{ error }

func (e *proofError) Unwrap() error { return e.error }

func (c closing) hardenProved(p *plan.Plan, base *profile.Profile, o Options) (*profile.Profile, []plan.Gap, error) {
	hardened, ch, err := rewrite(base, c)
	if err != nil {
		return nil, nil, fmt.Errorf("hardening the base profile: %w", err)
	}
	pairs, err := pairsOf(base, hardened, o.hosts(base, c.callNames()...))
	if err != nil {
		return nil, nil, err
	}
	if ch.stub, err = movesStub(pairs); err != nil {
		return nil, nil, err
	}
	gaps, err := gapsOf(p, base, c, ch, o)
	if err != nil {
		return nil, nil, err
	}
	if err := plan.Settle(gaps, o.Accept, o.Standing); err != nil {
		return nil, gaps, err
	}
	if c.broker {
		hardened.ListenerPath = o.Broker
		hardened.ListenerMetadata = plan.Metadata{Policy: p.Digest, Grants: o.Grants}.String()
	}
	err = parallel.Each(len(pairs), func(i int) error { return pairs[i].prove(c, ch) })
	if err != nil {
		return nil, gaps, &proofError{err}
	}
	return hardened, gaps, nil
}

// Prove compiles a profile as each runtime does on o.Host, and asks the
// programs every route: all must be closed, or with o.Broker left to the
// broker, whose further demands are then proved as well. With o.Grants and no
// broker, socket may open AF_ALG. A program may close socketcall, or leave it to the broker; with SocketcallKeep it may also stay
// open.
func Prove(p *plan.Plan, result *profile.Profile, o Options) error {
	key := o.key("proved", p, result)
	if _, ok := o.recall(key); ok {
		return nil
	}
	if o.KeptOnly {
		return ErrNotKept
	}
	held, err := o.held(p)
	if err != nil {
		return err
	}
	c := closing{classes: classesOf(p, held), socketcall: SocketcallDeny, broker: o.Broker != ""}
	c.granted = opensAFALG(held) && !c.broker
	switch {
	case o.Socketcall == SocketcallKeep:
		c.socketcall = SocketcallKeep
	case c.broker:
		c.socketcall = SocketcallBroker
	}
	defer seccomp.Keep()()
	if err := prove(result, o.Host, c); err != nil {
		return err
	}
	o.keep(key, remembered{Profile: result})
	return nil
}

// closingOf checks the options that are about the broker.
func closingOf(p *plan.Plan, base *profile.Profile, o Options) (closing, error) {
	held, err := o.held(p)
	if err != nil {
		return closing{}, err
	}
	c := closing{
		classes:    classesOf(p, held),
		errno:      uint(p.SocketErrno.Number),
		socketcall: o.Socketcall,
		broker:     o.Broker != "",
	}
	c.granted = opensAFALG(held) && !c.broker
	if err := checkSocketcall(o.Socketcall, c.broker); err != nil {
		return c, err
	}
	if !c.broker {
		return c, nil
	}
	has, _ := socketcallABIs(base, o)
	if o.Socketcall == SocketcallKeep && has && isPermissive(base.DefaultAction) {
		return c, fmt.Errorf("socketcall cannot be kept in a profile that allows by default and has a broker: libseccomp would hand parts of it to the broker; use --socketcall deny or broker")
	}
	return c, CheckBroker(o.Broker)
}

// opensAFALG reports whether rules allow more than denied classes.
func opensAFALG(held []policy.Rule) bool {
	return slices.ContainsFunc(held, func(r policy.Rule) bool { return !onlyClasses(r) })
}

// pairsOf resolves base and result for every machine that they are for: the one
// of the host where they are resolved, each that the base names otherwise.
func pairsOf(base, hardened *profile.Profile, hosts []profile.Host) ([]pair, error) {
	var pairs []pair
	for _, h := range hosts {
		before, err := base.Resolve(h)
		if err != nil {
			return nil, err
		}
		after, err := hardened.Resolve(h)
		if err != nil {
			return nil, err
		}
		one := pair{h, before, after}
		if !slices.ContainsFunc(pairs, one.same) {
			pairs = append(pairs, one)
		}
	}
	return pairs, nil
}

// same reports whether two pairs compile to the same programs.
func (p pair) same(other pair) bool {
	return p.host.Arch == other.host.Arch && reflect.DeepEqual(p.before, other.before) && reflect.DeepEqual(p.after, other.after)
}

// hosts lists the hosts for which a profile is proved. A conditional one is for
// each machine with every capability that a condition names and with those of an
// ordinary container; and with none if a condition is about a call that
// hardening rewrites: those of every hardening, or further ones.
func (o Options) hosts(p *profile.Profile, further ...string) []profile.Host {
	if !o.Conditional {
		return []profile.Host{o.Host}
	}
	natives := p.Natives()
	if len(natives) == 0 {
		natives = []specs.Arch{o.Host.Arch}
	}
	sets := [][]string{p.Caps(), profile.DefaultCaps()}
	touched, _ := split(p.Syscalls, append(closing{broker: true}.brokerNames(), further...)...)
	for _, rules := range touched {
		if slices.ContainsFunc(rules, func(r profile.Rule) bool { return r.Conditional() }) {
			sets = append(sets, nil)
			break
		}
	}
	var hosts []profile.Host
	for _, a := range natives {
		for _, caps := range sets {
			hosts = append(hosts, profile.Host{Arch: a, Caps: caps, Kernel: o.Host.Kernel})
		}
	}
	return hosts
}
