package probe

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Class is what a policy closes besides AF_ALG: sockets, or an option, or user
// namespaces if it has neither.
type Class struct {
	Name    string
	Sockets *afalg.Sockets
	Option  *afalg.SocketOption
	Modules []string // of the kernel that make it, where they are known
}

// ClassResult is the result for a class: that of its most worrying call.
type ClassResult struct {
	Class string `json:"class"`
	Outcome
	Calls []Call `json:"calls,omitempty"`
}

// trial is one call that is asked about, and how to read the answers.
type trial struct {
	name        string
	abi         afalg.ABI
	own, ring   bool
	alive       []ask // of a foreign ABI: one
	control     []ask // the call as everybody may make it; one must succeed
	gateControl []ask // as many: the gate, of what everybody may do
	gate        ask   // the class, with an argument that the kernel refuses at once
	refusal     unix.Errno
	real        []ask // what makes it, where that loads no module
	judge       func(*prober, tried) Outcome
}

// tried is a trial with its answers.
type tried struct {
	trial
	alive, control, gateControl, real []answer
	gate                              answer
}

func (t trial) questions() []ask {
	return slices.Concat(t.alive, t.control, t.gateControl, []ask{t.gate}, t.real)
}

// classes asks about every class.
func (p *prober) classes(ctx context.Context) ([]ClassResult, error) {
	abis := machine(runtime.GOARCH)
	var all [][]trial
	var questions []ask
	seen := map[ask]bool{}
	for _, c := range p.opt.Classes {
		trials := p.trials(abis, c)
		all = append(all, trials)
		for _, t := range trials {
			for _, q := range t.questions() {
				if !seen[q] {
					seen[q] = true
					questions = append(questions, q)
				}
			}
		}
	}
	answers, err := p.answers(ctx, questions)
	if err != nil {
		return nil, err
	}
	var results []ClassResult
	for i, c := range p.opt.Classes {
		r := ClassResult{Class: c.Name}
		for _, t := range all[i] {
			r.Calls = append(r.Calls, Call{t.name, p.outcomeOf(t, answers)})
		}
		r.Outcome = worst(r.Calls)
		results = append(results, r)
	}
	return results, nil
}

// mostAsked bounds the questions for one child: they are one argument.
const mostAsked = 400

// answers asks each question once.
func (p *prober) answers(ctx context.Context, questions []ask) (map[ask]answer, error) {
	answers := map[ask]answer{}
	for some := range slices.Chunk(questions, mostAsked) {
		list, err := p.ask(ctx, some)
		if err != nil {
			return nil, fmt.Errorf("asking the kernel for what the policy closes: %w", err)
		}
		for i, q := range some {
			answers[q] = list[i]
		}
	}
	return answers, nil
}

func (p *prober) trials(abis []afalg.ABI, c Class) []trial {
	switch {
	case c.Sockets != nil:
		return p.socketTrials(abis, c)
	case c.Option != nil:
		return optionTrials(abis, *c.Option)
	}
	return namespaceTrials(abis)
}

func (p *prober) outcomeOf(t trial, answers map[ask]answer) Outcome {
	if reach[t.abi.Name] == nil {
		return unreachable(call{abi: t.abi})
	}
	of := func(all []ask) (list []answer) {
		for _, q := range all {
			list = append(list, answers[q])
		}
		return list
	}
	return t.judge(p, tried{
		trial: t, gate: answers[t.gate],
		alive: of(t.alive), control: of(t.control), gateControl: of(t.gateControl), real: of(t.real),
	})
}

// begin starts an outcome with the controls. It is decided where the machine
// does not have the call.
func (t tried) begin(p *prober) (o Outcome, decided bool) {
	o = Outcome{Verdict: Undecided, Filter: Uncertain, Control: "ok"}
	i := t.good()
	if i < 0 {
		o.Control = t.control[0].String()
	}
	if i < 0 && t.unavailable(p) {
		o.Verdict, o.Detail = Unavailable, "this kernel does not have the call, or does not run "+t.abi.Name+" programs"
		return o, true
	}
	switch {
	case t.gate.is(t.refusal) && t.gate.Stage == "" && (i >= 0 || !t.ring && t.gateControl[0].is(t.refusal)):
		o.Filter = Passes
	case t.gate.denied() && !t.gate.is(t.refusal) && (i < 0 || t.gateControl[i].is(t.refusal)):
		o.Filter = Denies
	}
	return o, false
}

// unavailable reports whether nothing at all can be asked by the call, and no
// filter is the reason.
func (t tried) unavailable(p *prober) bool {
	first := t.control[0]
	if first.String() != t.gate.String() {
		return false
	}
	for _, a := range t.alive {
		if a.String() == first.String() && (a.Signal == "SIGSEGV" || a.is(unix.ENOSYS) && t.abi.Kind == afalg.X32) {
			return true
		}
	}
	return t.ring && first.is(unix.ENOSYS) && !p.host.HasIOUring()
}

func (t tried) good() int {
	return slices.IndexFunc(t.control, func(a answer) bool { return a.OK })
}

// closedByFilter is the outcome where the gate was denied.
func (t tried) closedByFilter(o Outcome) Outcome {
	o.Verdict, o.Errno = Closed, t.gate.String()
	o.Detail = "a filter answers " + o.Errno
	if t.gate.Signal != "" {
		o.Detail = "a filter kills with " + o.Errno
	}
	if t.good() < 0 {
		o.Detail += ", to all that is asked by this call: it is closed as a whole"
	}
	return o
}

// undecided is the outcome where the answers do not tell.
func undecided(o Outcome, a answer) Outcome {
	o.Verdict, o.Errno, o.Detail = Undecided, a.String(), "the answers do not show whether it is stopped"
	return o
}
