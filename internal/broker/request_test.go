package broker

import (
	"reflect"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// Whatever a rule may ask of a caller is found out, and put to the plan: a fact
// that is missing here is one by which nobody is ever allowed.
func TestRequestIsWhole(t *testing.T) {
	uid := uint32(7)
	who := subject.Subject{Binary: "/a", SHA256: "aa", Claimed: true, UID: &uid, Capabilities: []string{"CAP_BPF"}, Unit: "a.service"}
	s := &server{Broker: &Broker{o: Options{UserName: func(uint32) string { return "alice" }}}}
	r := reflect.ValueOf(s.request(who))
	without := map[string]string{
		"Algorithm": "it is asked for apart",
		"CleanExec": "the kernel half alone can tell",
	}
	for i := range r.NumField() {
		if name := r.Type().Field(i).Name; r.Field(i).IsZero() != (without[name] != "") {
			t.Errorf("%s is %v", name, r.Field(i))
		}
	}
}

// A socket that a rule with strict-exec would give is denied with that as a reason.
func TestReasonNamesStrictExec(t *testing.T) {
	for strict, want := range map[bool]string{false: "no", true: "no; a rule with strict-exec holds under the kernel half alone"} {
		a := answer{plan: &plan.Plan{Rules: []policy.Rule{{Anyone: true, StrictExec: strict}}}}
		if got := because(&a, "no"); got != want {
			t.Errorf("strict-exec %t: %q, want %q", strict, got, want)
		}
	}
}

// A denial names the fact that could not be found out, if it would have mattered.
// Each condition is about a fact.
func TestEachConditionHasAFact(t *testing.T) {
	named := map[string]bool{}
	for _, name := range conditions {
		named[name] = true
	}
	demanding := policy.Rule{Algorithms: []policy.Algorithm{{Algorithm: afalg.Algorithm{Type: afalg.Hash, Name: "sha1"}}}}
	for i := range reflect.TypeFor[policy.Rule]().NumField() {
		if f := reflect.ValueOf(&demanding).Elem().Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		}
	}
	missed := plan.Explain(&plan.Plan{Rules: []policy.Rule{demanding}}, plan.Request{Algorithm: demanding.Algorithms[0].Algorithm}).Misses
	for _, m := range missed {
		if !named[m.Condition] {
			t.Errorf("no fact is said to be what a rule's %q asks for", m.Condition)
		}
		delete(named, m.Condition)
	}
	for name := range named {
		t.Errorf("no rule asks for %q", name)
	}
}
