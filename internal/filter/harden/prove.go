package harden

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// prove compiles the profile as each runtime would on that host, and asks the
// programs about every route. A compiler of filters has bugs; the profile's
// text proves nothing. Of a brokered profile whose base is not known, it proves
// what can be proved besides.
func prove(p *profile.Profile, h profile.Host, c closing) error {
	resolved, err := p.Resolve(h)
	if err != nil {
		return err
	}
	return c.compiled(resolved, h, func(program *seccomp.Program, r seccomp.Runtime) error {
		if !c.broker {
			return nil
		}
		if err := c.answered(program); err != nil {
			return fmt.Errorf("with %s on %s %w", r, h.Arch, err)
		}
		return nil
	})
}

// prove proves a result closed, and equal to its base except for what hardening
// declared.
func (p pair) prove(c closing, ch change) error {
	if err := checkTangles(p.before); err != nil {
		return fmt.Errorf("the base: %w", err)
	}
	// The base is compiled beside the result, and asked for again below.
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { _, _, _ = p.reference(ch, seccomp.Runc) })
	err := c.compiled(p.after, p.host, func(program *seccomp.Program, r seccomp.Runtime) error {
		return p.proveEqual(c, ch, program, r)
	})
	if err == nil {
		return nil
	}
	if _, _, baseErr := p.reference(ch, seccomp.Runc); baseErr != nil {
		return fmt.Errorf("no runtime loads the base: %w; give the same calls one action", baseErr)
	}
	return err
}

// compiled compiles a profile as each runtime does, proves the programs closed,
// and hands them on.
func (c closing) compiled(p *specs.LinuxSeccomp, h profile.Host, then func(*seccomp.Program, seccomp.Runtime) error) error {
	if err := checkTangles(p); err != nil {
		return err
	}
	runtimes := seccomp.Runtimes()
	return parallel.Each(len(runtimes), func(i int) error {
		o := seccomp.Options{Runtime: runtimes[i], Native: h.Arch}
		program, err := seccomp.Compile(p, o)
		if err != nil {
			return fmt.Errorf("compiling the hardened profile as %s does on %s: %w", o.Runtime, h.Arch, err)
		}
		if err := c.proveProgram(program, o.Runtime, isPermissive(p.DefaultAction)); err != nil {
			return err
		}
		return then(program, o.Runtime)
	})
}

func (c closing) proveProgram(program *seccomp.Program, r seccomp.Runtime, allows bool) error {
	filter := cbpf.Filter{cbpf.Program(program.Insns)}
	accepts := func(v verify.Verdict, family uint32) bool { return c.accepts(v, family, allows) }
	open, err := c.firstOpen(filter, verify.Admitted(program), accepts)
	switch {
	case err != nil:
		return fmt.Errorf("proving the program of %s: %w", r, err)
	case open != nil:
		return &openError{Runtime: r, Level: program.Level, About: open.about, Verdict: open.verdict}
	}
	return nil
}

// ProveFilter proves the filters of a process that no listener comes with, as
// of one that is restored from a checkpoint: what they leave to a listener is
// refused, unless another can be loaded. With SocketcallKeep, socketcall may be
// open.
func ProveFilter(p *plan.Plan, f cbpf.Filter, o Options) error {
	abis := afalg.Machine(string(o.Host.Arch))
	if abis == nil {
		return fmt.Errorf("the system calls of %s are not known", o.Host.Arch)
	}
	held, err := o.held(p)
	if err != nil {
		return err
	}
	accepts := func(v verify.Verdict, _ uint32) bool {
		return v.State == verify.Listener || v.Call.Name == "socketcall" && o.Socketcall == SocketcallKeep
	}
	open, err := classesOf(p, held).firstOpen(f, abis, accepts)
	if err != nil || open == nil {
		return err
	}
	v := open.verdict
	return fmt.Errorf("%s on %s reaches %s (%s: %s)", v.Call.Name, v.Call.ABI.Name, open.about, v.State, explained(v))
}

// reached is what is closed, and the answer about a call that reaches it.
type reached struct {
	verdict verify.Verdict
	about   string
}

// firstOpen finds the first call by which a filter leaves something open, unless
// that is accepted; nil if there is none.
func (c classes) firstOpen(f cbpf.Filter, abis []afalg.ABI, accepts func(verify.Verdict, uint32) bool) (*reached, error) {
	all, err := c.questions(abis)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		var verdicts []verify.Verdict
		for _, q := range a.Questions {
			v, err := q.Ask(f, verify.Options{})
			if err != nil {
				return nil, err
			}
			verdicts = append(verdicts, v)
		}
		if err := verify.OpenReplaceable(f, abis, verdicts, verify.Directly); err != nil {
			return nil, err
		}
		for _, v := range verdicts {
			if v.State != verify.Closed && !accepts(v, a.Family) {
				return &reached{v, a.About}, nil
			}
		}
	}
	return nil, nil
}

// questions lists what has to be closed. What classes have in common, as socketcall,
// is asked once.
func (c classes) questions(abis []afalg.ABI) ([]verify.Asked, error) {
	all, err := verify.Classes{Families: c.families, Sockets: c.narrow, Options: c.options, UserNamespaces: c.userNamespaces}.Questions(abis)
	seen := map[cbpf.Region]bool{}
	for i := range all {
		all[i].Questions = slices.DeleteFunc(all[i].Questions, func(q verify.Question) bool {
			again := seen[q.Region]
			seen[q.Region] = true
			return again
		})
	}
	return all, err
}

// accepts reports whether a route is open because the user took that gap on, or
// because the broker answers.
func (c closing) accepts(v verify.Verdict, family uint32, allows bool) bool {
	call := v.Call
	if c.broker && v.State == verify.Listener {
		return call.Name == "socket" && family == afalg.Family || call.Name == "socketcall" && c.socketcall != SocketcallDeny
	}
	if call.Name == "socketcall" {
		return c.socketcall == SocketcallKeep && !(allows && *call.Arg0 == socketcallSetsockopt)
	}
	if !c.granted || family != afalg.Family || call.Name != "socket" {
		return false
	}
	// A grant in a default-deny profile opens the exact number only.
	return call.Route != afalg.RouteSocketHighbits || allows
}

// openError says that a hardened profile would leave a route open. Nothing is
// written then.
type openError struct {
	Runtime seccomp.Runtime
	Level   int
	About   string
	Verdict verify.Verdict
}

// explained lists the actions of a verdict, and why they are no denial.
func explained(v verify.Verdict) string {
	text := strings.Join(v.Actions, ", ")
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	return text
}

func (e *openError) Error() string {
	v := e.Verdict
	witness := "none found"
	if v.Witness != nil {
		witness = v.Witness.String()
	}
	return fmt.Sprintf("the base cannot be hardened: with %s (libseccomp %s, level %d) %s on %s still reaches %s (%s: %s); witness: %s",
		e.Runtime, seccomp.Version(), e.Level, v.Call.Name, v.Call.ABI.Name,
		e.About, v.State, explained(v), witness)
}
