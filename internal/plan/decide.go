package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Request is one bind: who asks for which algorithm. What is not known is
// left at its zero value, and satisfies no condition.
type Request struct {
	Binary       string   // absolute path of the executable, as the kernel shows it
	SHA256       string   // of that executable, lower-case hex
	Claimed      bool     // Binary is a name in a mount namespace that the subject's side made: it means nothing without SHA256
	UID          *uint32  // in the initial user namespace
	User         string   // the name that belongs to UID, if it has one
	Capabilities []string // effective in the initial user namespace: "CAP_NET_ADMIN"
	Unit         string   // the systemd unit: "iwd.service"
	Algorithm    afalg.Algorithm
}

// Decision is the answer to a request. The zero decision is a denial.
type Decision struct {
	Allowed bool
	Rule    *policy.Rule // the rule that allows, nil in a denial; belongs to the plan
}

// Decide is the reference semantics. A request is allowed if one rule names
// its algorithm and every condition of that rule holds; nothing else is. Names
// compare exactly: "*" in a rule opens a type, a template unit stands for its
// instances, root is uid 0, and there are no other patterns.
// Rules only add: none can take away what another allows. It does no I/O, and
// a nil plan, a zero plan and a zero request are denied.
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

// admits tells whether a rule is about the subject, whatever it asks for.
func admits(rule *policy.Rule, r *Request) bool { return meets(subjectConditions, rule, r) }

func meets(all []condition, rule *policy.Rule, r *Request) bool {
	for _, c := range all {
		if c.applies(rule) && !c.holds(rule, r) {
			return false
		}
	}
	return true
}

// condition is one thing that a rule may ask of a request.
type condition struct {
	name    string
	applies func(*policy.Rule) bool
	holds   func(*policy.Rule, *Request) bool
	miss    func(*policy.Rule, *Request) string // why it does not hold, for people
}

// conditions lists all of them; a rule allows what meets each that applies.
var conditions = append([]condition{{"algorithm", always, algorithmHolds, algorithmMiss}}, subjectConditions...)

var subjectConditions = []condition{
	{"subject", namesNobody, never, subjectMiss},
	{"binary", hasBinaries, binaryHolds, binaryMiss},
	{"user", hasUsers, userHolds, userMiss},
	{"capability", hasCapabilities, capabilityHolds, capabilityMiss},
	{"unit", hasUnits, unitHolds, unitMiss},
}

func always(*policy.Rule) bool               { return true }
func never(*policy.Rule, *Request) bool      { return false }
func hasBinaries(rule *policy.Rule) bool     { return len(rule.Binaries) > 0 }
func hasUsers(rule *policy.Rule) bool        { return len(rule.Users) > 0 }
func hasCapabilities(rule *policy.Rule) bool { return len(rule.Capabilities) > 0 }
func hasUnits(rule *policy.Rule) bool        { return len(rule.Units) > 0 }
func hasConditions(rule *policy.Rule) bool {
	return hasBinaries(rule) || hasUsers(rule) || hasCapabilities(rule) || hasUnits(rule)
}

// namesNobody holds for a rule without a condition that does not say
// "anyone": an empty list must not open anything.
func namesNobody(rule *policy.Rule) bool { return !rule.Anyone && !hasConditions(rule) }

// anyName in a rule opens a whole type. In a request it is no algorithm.
const anyName = "*"

func algorithmHolds(rule *policy.Rule, r *Request) bool {
	want := r.Algorithm
	if want.Type == "" || want.Name == "" || want.Name == anyName {
		return false
	}
	return slices.ContainsFunc(rule.Algorithms, func(a policy.Algorithm) bool {
		return a.Type == want.Type && (a.Name == want.Name || a.Name == anyName)
	})
}

func binaryHolds(rule *policy.Rule, r *Request) bool {
	return slices.ContainsFunc(rule.Binaries, func(b policy.Binary) bool {
		return known(r.Binary) && b.Path == r.Binary && contentHolds(b, r)
	})
}

// contentHolds compares digests. Where the subject's side names its files, a
// path alone says nothing.
func contentHolds(b policy.Binary, r *Request) bool {
	if b.SHA256 == "" {
		return !r.Claimed
	}
	return b.SHA256 == r.SHA256
}

func userHolds(rule *policy.Rule, r *Request) bool {
	return slices.ContainsFunc(rule.Users, func(user string) bool {
		if uid, ok := numeric(user); ok {
			return r.UID != nil && *r.UID == uid
		}
		return known(r.User) && user == r.User
	})
}

// numeric reads a user that stands for a uid: a decimal number, or root,
// which is uid 0 whatever a host's user database calls it.
func numeric(user string) (uint32, bool) {
	if user == "root" {
		return 0, true
	}
	uid, err := strconv.ParseUint(user, 10, 32)
	return uint32(uid), err == nil
}

func capabilityHolds(rule *policy.Rule, r *Request) bool {
	return slices.ContainsFunc(rule.Capabilities, func(c string) bool {
		return known(c) && slices.Contains(r.Capabilities, c)
	})
}

func unitHolds(rule *policy.Rule, r *Request) bool {
	if !known(r.Unit) {
		return false
	}
	template, instance := templateOf(r.Unit)
	return slices.Contains(rule.Units, r.Unit) || instance && slices.Contains(rule.Units, template)
}

// templateOf finds the template of an instance, as systemd splits names:
// "x@a@b.c.service" is an instance of "x@.service".
func templateOf(unit string) (template string, instance bool) {
	at, dot := strings.IndexByte(unit, '@'), strings.LastIndexByte(unit, '.')
	if at <= 0 || dot <= at+1 {
		return "", false
	}
	return unit[:at+1] + unit[dot:], true
}

// known is false for what a request leaves open.
func known(s string) bool { return s != "" }
