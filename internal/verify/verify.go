// Package verify asks a seccomp filter, as the kernel would run it, which
// routes to a socket family it leaves open. Its answers are proofs over every
// input of a call, or witnesses that the interpreter has replayed.
package verify

import (
	"cmp"
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// State is the answer for one call. Only Closed is a denial; the zero State
// is not one.
type State int

const (
	// Undecided: a tracer decides, or no proof and no witness was found
	// within the budget. It counts as open.
	Undecided State = iota
	// Open: the call is let through for the witness.
	Open
	// Listener: whoever listens to the filter's notifications decides, and
	// nothing else lets the call through.
	Listener
	// Closed: every input of the call is killed, trapped or refused.
	Closed
)

var stateNames = [...]string{"open, undecided", "open", "left to a listener", "closed"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// Verdict is the answer for one call of one route.
type Verdict struct {
	Call  afalg.Call // with its route and ABI
	State State
	// Actions names what the filter does with the call, in order of
	// precedence: "ERRNO(97)", "ALLOW".
	Actions []string
	// Witness is an input for which the filter does not close the call. It is
	// nil if the state is Closed, or Undecided without one.
	Witness *bpf.Data
	// Reason says why the state is Undecided.
	Reason string
}

// Options change what counts as closed.
type Options struct {
	// NotifyCloses says that the listener is ours and refuses what is not
	// allowed: USER_NOTIF closes a call.
	NotifyCloses bool
	// Budget bounds the work for each call; 0 stands for callBudget.
	Budget int
}

// callBudget keeps all routes of a program that was built against proofs below
// two seconds. It is a hundred times what compiled profiles take.
const callBudget = bpf.DefaultBudget / 12

// Question is a set of calls to ask a filter about.
type Question struct {
	Call   afalg.Call // name, number and ABI; the route if it is one
	Region bpf.Region // the inputs that the calls can give a filter
}

// RouteQuestions lists every call by which the ABIs reach the family. The
// order is that of abis and of afalg.ABI.Calls.
func RouteQuestions(abis []afalg.ABI, family uint32) []Question {
	var questions []Question
	for _, abi := range abis {
		for _, call := range abi.Calls(family) {
			questions = append(questions, ofCall(call))
		}
	}
	return questions
}

// Routes asks a filter about every call by which the ABIs reach the family.
// It fails if the kernel would reject the filter.
func Routes(f bpf.Filter, abis []afalg.ABI, family uint32, o Options) ([]Verdict, error) {
	var verdicts []Verdict
	for _, q := range RouteQuestions(abis, family) {
		v, err := q.Ask(f, o)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

// Ask asks a filter about one call.
func Ask(f bpf.Filter, call afalg.Call, o Options) (Verdict, error) {
	return ofCall(call).Ask(f, o)
}

func ofCall(call afalg.Call) Question { return Question{call, RegionOf(call)} }

// Ask puts the question to a filter.
func (q Question) Ask(f bpf.Filter, o Options) (Verdict, error) {
	out, err := f.Actions(q.Region, bpf.EndianOf(q.Call.ABI.BigEndian), cmp.Or(o.Budget, callBudget))
	if err != nil {
		return Verdict{}, fmt.Errorf("verify %s on %s: %w", q.Call.Name, q.Call.ABI.Name, err)
	}
	v := Verdict{Call: q.Call}
	for _, found := range out.Found {
		v.Actions = append(v.Actions, found.Action.String())
	}
	v.judge(out, o)
	return v, nil
}

// RegionOf returns every input that the call can give a filter: what the call
// does not fix is free.
func RegionOf(call afalg.Call) bpf.Region {
	r := bpf.Region{bpf.Arch: bpf.Exactly(call.ABI.Audit), bpf.Nr: bpf.Exactly(call.Nr)}
	if call.Arg0 != nil {
		r[bpf.ArgLow(0)] = bpf.Exactly(*call.Arg0)
	}
	switch call.High {
	case afalg.HighZero:
		r[bpf.ArgHigh(0)] = bpf.Exactly(0)
	case afalg.HighSet:
		r[bpf.ArgHigh(0)] = bpf.Not(0)
	}
	return r
}

// through lists the actions that may let a call through, the worst first.
var through = []struct {
	kind   bpf.Kind
	state  State
	reason string
}{
	{bpf.Allow, Open, ""},
	{bpf.Log, Open, ""},
	{bpf.Trace, Undecided, "a tracer decides"},
	{bpf.UserNotif, Listener, ""},
}

// judge sets the state: the worst of what may happen, where what is not known
// is better than open and worse than anything else.
func (v *Verdict) judge(out bpf.Outcome, o Options) {
	v.State = Closed
	for _, t := range through {
		if t.kind == bpf.UserNotif && o.NotifyCloses {
			continue
		}
		state, reason := t.state, t.reason
		switch out.Possible[t.kind] {
		case bpf.No:
			continue
		case bpf.Unknown:
			state, reason = Undecided, fmt.Sprintf("no proof and no witness that the filter returns %v", t.kind)
		}
		if worse(state, v.State) {
			v.State, v.Reason, v.Witness = state, reason, nil
			if found, ok := out.Of(t.kind); ok {
				v.Witness = &found.Witness
			}
		}
	}
}

func worse(a, b State) bool { return badness[a] > badness[b] }

var badness = [...]int{Open: 3, Undecided: 2, Listener: 1, Closed: 0}
