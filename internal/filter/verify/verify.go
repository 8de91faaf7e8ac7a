// Package verify asks a seccomp filter, as the kernel would run it, which
// routes to a socket family it leaves open. Its answers are proofs over every
// input of a call, or witnesses replayed by the interpreter.
package verify

import (
	"cmp"
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// State is the answer for one call. Only Closed is a denial; the zero State is
// none.
type State int

const (
	// Undecided: a tracer decides, or no proof and no witness was found
	// within the budget. It counts as open.
	Undecided State = iota
	// Open: the filter permits the call for the witness.
	Open
	// Listener: the listener to the filter's notifications decides, and nothing
	// else permits the call. Where the listener can be replaced, OpenReplaceable makes
	// it Open.
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
	Witness *cbpf.Data
	// Reason says why the state is Undecided, or Open without a witness that
	// the filter permits by itself.
	Reason string
}

// Options change what counts as closed.
type Options struct {
	// NotifyCloses means that the listener is ours and refuses every call that
	// the policy does not allow: USER_NOTIF closes a call.
	NotifyCloses bool
	// Budget bounds the work for each call; 0 stands for callBudget.
	Budget int
}

// callBudget keeps all routes of a program that was built against proofs below
// two seconds. It is a hundred times the need of compiled profiles.
const callBudget = cbpf.DefaultBudget / 12

// Question is a set of calls to ask a filter about.
type Question struct {
	Call   afalg.Call  // name, number and ABI; the route if it is one
	Region cbpf.Region // the inputs that the calls can give a filter
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
func Routes(f cbpf.Filter, abis []afalg.ABI, family uint32, o Options) ([]Verdict, error) {
	var verdicts []Verdict
	for _, q := range RouteQuestions(abis, family) {
		v, err := q.Ask(f, o)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, OpenReplaceable(f, abis, verdicts, Directly)
}

// Ask asks a filter about one call. A call left to a listener is Listener,
// whether or not that can be replaced.
func Ask(f cbpf.Filter, call afalg.Call, o Options) (Verdict, error) {
	return ofCall(call).Ask(f, o)
}

func ofCall(call afalg.Call) Question { return Question{call, RegionOf(call)} }

// Ask puts the question to a filter.
func (q Question) Ask(f cbpf.Filter, o Options) (Verdict, error) {
	out, err := f.Actions(q.Region, cbpf.EndianOf(q.Call.ABI.BigEndian()), cmp.Or(o.Budget, callBudget))
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

// RegionOf returns every input that the call can give a filter: parts that the
// call does not fix are free.
func RegionOf(call afalg.Call) cbpf.Region {
	r := cbpf.Region{cbpf.Arch: cbpf.Exactly(call.ABI.Audit), cbpf.Nr: cbpf.Exactly(call.Nr)}
	if call.Arg0 != nil {
		r[cbpf.ArgLow(0)] = cbpf.Exactly(*call.Arg0)
	}
	switch call.High {
	case afalg.HighZero:
		r[cbpf.ArgHigh(0)] = cbpf.Exactly(0)
	case afalg.HighSet:
		r[cbpf.ArgHigh(0)] = cbpf.Not(0)
	}
	return r
}

// through lists the actions that may permit a call, the worst first.
var through = []struct {
	kind   cbpf.Kind
	state  State
	reason string
}{
	{cbpf.Allow, Open, ""},
	{cbpf.Log, Open, ""},
	{cbpf.Trace, Undecided, "a tracer decides"},
	{cbpf.UserNotif, Listener, ""},
}

// judge sets the state: the worst of the possible results. Unknown is better
// than open and worse than anything else.
func (v *Verdict) judge(out cbpf.Outcome, o Options) {
	v.State = Closed
	for _, t := range through {
		if t.kind == cbpf.UserNotif && o.NotifyCloses {
			continue
		}
		state, reason := t.state, t.reason
		switch out.Possible[t.kind] {
		case cbpf.No:
			continue
		case cbpf.Unknown:
			state, reason = Undecided, fmt.Sprintf("no proof and no witness that the filter returns %v", t.kind)
		}
		if badness[state] > badness[v.State] {
			v.State, v.Reason, v.Witness = state, reason, nil
			if found, ok := out.Of(t.kind); ok {
				v.Witness = &found.Witness
			}
		}
	}
}

var badness = [...]int{Open: 3, Undecided: 2, Listener: 1, Closed: 0}
