package plan

import "github.com/afalg-policy/afalg-policy/internal/policy"

// Decision is the answer to a request. The zero decision is a denial.
type Decision struct {
	Allowed bool
	Rule    *policy.Rule // the rule that allows, nil in a denial; belongs to the plan
}

// Decide is the reference semantics. It allows a request if one rule names the
// algorithm and every condition of that rule holds, and allows nothing else.
// Names compare exactly: "*" in a rule opens a type, a template unit stands for
// its instances, root is uid 0, and there are no other patterns. Rules only
// add: none can take away what another allows. Decide does no I/O. It denies
// with a nil plan, a zero plan and a zero request.
func Decide(p *Plan, r Request) Decision {
	if p == nil {
		return Decision{}
	}
	for i := range p.Rules {
		if allows(&p.Rules[i], &r) {
			return Decision{Allowed: true, Rule: &p.Rules[i]}
		}
	}
	return Decision{}
}

func allows(rule *policy.Rule, r *Request) bool { return meets(conditions, rule, r) }

// admits reports whether a rule is about the subject, whatever algorithm it
// asks for.
func admits(rule *policy.Rule, r *Request) bool { return meets(subjectConditions, rule, r) }

// known is false for what a request leaves open.
func known(s string) bool { return s != "" }
