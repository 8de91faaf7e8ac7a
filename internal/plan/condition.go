package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Request is one bind: who asks for which algorithm. An unknown fact is
// left at its zero value, and satisfies no condition.
type Request struct {
	Binary       string   // absolute path of the executable, as the kernel shows it
	SHA256       string   // of that executable, lower-case hex
	Claimed      bool     // Binary is a name in a mount namespace that the subject's side made: it means nothing without SHA256
	CleanExec    bool     // the executable was started where nobody else steers it: no LD_PRELOAD, no tracer
	UID          *uint32  // in the initial user namespace
	User         string   // the name that belongs to UID, if it has one
	Capabilities []string // effective in the initial user namespace: "CAP_NET_ADMIN"
	Unit         string   // the systemd unit: "iwd.service"
	Algorithm    afalg.Algorithm
}

// condition is one thing that a rule may ask of a request: all that this package
// does about it.
type condition struct {
	name    string // as a Miss has it
	applies func(*policy.Rule) bool
	holds   func(*policy.Rule, *Request) bool
	miss    func(*policy.Rule, *Request) string // why it does not hold, for people
	ways    func(*policy.Rule) []way            // to meet it; none if nothing need be done
}

// way is the least that a request must have to meet a condition.
type way struct {
	text string // "user root"
	take func(*Request)
}

// conditions lists all of them; a rule allows what meets each that applies.
var (
	conditions        = append([]condition{{"algorithm", always, algorithmHolds, algorithmMiss, noWays}}, subjectConditions...)
	subjectConditions = slices.Concat([]condition{{"subject", namesNobody, never, subjectMiss, noWays}}, listedConditions, []condition{strictExec})
	listedConditions  = []condition{
		listed("binary", func(r *policy.Rule) []policy.Binary { return r.Binaries }, binaryHolds, binaryMiss, binaryWay),
		listed("user", func(r *policy.Rule) []string { return r.Users }, userHolds, userMiss, userWay),
		listed("capability", func(r *policy.Rule) []string { return r.Capabilities }, capabilityHolds, capabilityMiss, capabilityWay),
		listed("unit", func(r *policy.Rule) []string { return r.Units }, unitHolds, unitMiss, unitWay),
	}
)

// strictExec is about how the binary of a rule was started. By itself it names
// nobody.
var strictExec = condition{
	name:    "strict-exec",
	applies: func(rule *policy.Rule) bool { return rule.StrictExec },
	holds:   func(_ *policy.Rule, r *Request) bool { return r.CleanExec },
	miss: func(*policy.Rule, *Request) string {
		return "it is not known that nobody else steers the executable, by LD_PRELOAD or as a tracer; the rule asks for that (strict-exec), and only the kernel half can tell"
	},
	ways: func(rule *policy.Rule) []way {
		if !rule.StrictExec {
			return nil
		}
		return []way{{"started where nobody else steers it", func(r *Request) { r.CleanExec = true }}}
	},
}

// listed is a condition that one of the values in a list of the rule meets. It
// applies to a rule that lists any.
func listed[V any](name string, list func(*policy.Rule) []V, holds func(V, *Request) bool, miss func([]V, *Request) string, least func(V) way) condition {
	return condition{
		name:    name,
		applies: func(rule *policy.Rule) bool { return len(list(rule)) > 0 },
		holds: func(rule *policy.Rule, r *Request) bool {
			return slices.ContainsFunc(list(rule), func(v V) bool { return holds(v, r) })
		},
		miss: func(rule *policy.Rule, r *Request) string { return miss(list(rule), r) },
		ways: func(rule *policy.Rule) (all []way) {
			for _, v := range list(rule) {
				all = append(all, least(v))
			}
			return all
		},
	}
}

func meets(all []condition, rule *policy.Rule, r *Request) bool {
	for _, c := range all {
		if c.applies(rule) && !c.holds(rule, r) {
			return false
		}
	}
	return true
}

func always(*policy.Rule) bool          { return true }
func never(*policy.Rule, *Request) bool { return false }
func noWays(*policy.Rule) []way         { return nil }

// anyName in a rule opens a whole type. In a request it is no algorithm.
const anyName = afalg.AnyName

func algorithmHolds(rule *policy.Rule, r *Request) bool {
	want := r.Algorithm
	if want.Type == "" || want.Name == "" || want.Name == anyName {
		return false
	}
	return slices.ContainsFunc(rule.Algorithms, func(a policy.Algorithm) bool {
		return a.Type == want.Type && (a.Name == want.Name || a.Name == anyName)
	})
}

func algorithmMiss(rule *policy.Rule, r *Request) string {
	if r.Algorithm.Name == anyName {
		return fmt.Sprintf("algorithm %s: a request names one algorithm, not a whole type", r.Algorithm)
	}
	var sameType []string
	for _, a := range rule.Algorithms {
		if a.Type == r.Algorithm.Type {
			sameType = append(sameType, a.Name)
		}
	}
	if len(sameType) == 0 {
		return fmt.Sprintf("algorithm %s: the rule allows no %s", r.Algorithm, typeName(r.Algorithm.Type))
	}
	return fmt.Sprintf("algorithm %s is not among %s: %s", r.Algorithm, r.Algorithm.Type, some(sameType))
}

func typeName(t afalg.Type) string {
	if t == "" {
		return "algorithm without a type"
	}
	return string(t)
}

// namesNobody holds for a rule without a condition that does not say
// "anyone": an empty list must not open anything.
func namesNobody(rule *policy.Rule) bool {
	return !rule.Anyone && !slices.ContainsFunc(listedConditions, func(c condition) bool { return c.applies(rule) })
}

func subjectMiss(*policy.Rule, *Request) string {
	var names []string
	for _, c := range listedConditions {
		names = append(names, c.name)
	}
	last := len(names) - 1
	return "the rule names nobody: no " + strings.Join(names[:last], ", ") + " or " + names[last]
}

func binaryHolds(b policy.Binary, r *Request) bool {
	return known(r.Binary) && b.Path == r.Binary && contentHolds(b, r)
}

// contentHolds compares digests. Where the subject's side names its files, a
// path alone says nothing.
func contentHolds(b policy.Binary, r *Request) bool {
	if b.SHA256 == "" {
		return !r.Claimed
	}
	return b.SHA256 == r.SHA256
}

func binaryMiss(all []policy.Binary, r *Request) string {
	if !known(r.Binary) {
		return "the binary is not known; the rule asks for " + some(paths(all))
	}
	if b := ofPath(all, r.Binary); b != nil {
		return contentMiss(*b, r)
	}
	return fmt.Sprintf("binary %s is not among %s", r.Binary, some(paths(all)))
}

// ofPath finds the entry of a path, one with a digest first: without one it
// may fail only because the path is claimed.
func ofPath(all []policy.Binary, path string) *policy.Binary {
	var found *policy.Binary
	for i, b := range all {
		if b.Path == path && (found == nil || found.SHA256 == "") {
			found = &all[i]
		}
	}
	return found
}

func contentMiss(b policy.Binary, r *Request) string {
	switch {
	case b.SHA256 == "":
		return fmt.Sprintf("the path %s is what the container says it is; to hold there, the rule needs its sha256", b.Path)
	case !known(r.SHA256):
		return fmt.Sprintf("the sha256 of %s is not known; the rule asks for %s", b.Path, b.SHA256)
	default:
		return fmt.Sprintf("the sha256 of %s is %s, the rule asks for %s", b.Path, r.SHA256, b.SHA256)
	}
}

func paths(all []policy.Binary) []string {
	var list []string
	for _, b := range all {
		list = append(list, b.Path)
	}
	return list
}

func binaryWay(b policy.Binary) way {
	text := b.Path
	if b.SHA256 != "" {
		text += ", with sha256 " + b.SHA256
	}
	return way{text, func(r *Request) { r.Binary, r.SHA256 = b.Path, b.SHA256 }}
}

func userHolds(user string, r *Request) bool {
	if uid, ok := UserID(user); ok {
		return r.UID != nil && *r.UID == uid
	}
	return known(r.User) && user == r.User
}

// UserID reads a user of a rule that stands for a uid: a decimal number, or
// root, which is uid 0 whatever a host's user database calls it.
func UserID(user string) (uint32, bool) {
	if user == "root" {
		return 0, true
	}
	uid, err := strconv.ParseUint(user, 10, 32)
	return uint32(uid), err == nil
}

func userMiss(users []string, r *Request) string {
	user := r.User
	if r.UID != nil {
		user = strings.TrimSpace(user + " (uid " + strconv.FormatUint(uint64(*r.UID), 10) + ")")
	}
	if user == "" {
		return "the user is not known; the rule asks for " + some(users)
	}
	return fmt.Sprintf("user %s is not among %s", user, some(users))
}

func userWay(user string) way {
	return way{"user " + user, func(r *Request) {
		if uid, ok := UserID(user); ok {
			r.UID = &uid
		} else {
			r.User = user
		}
	}}
}

func capabilityHolds(capability string, r *Request) bool {
	return known(capability) && slices.Contains(r.Capabilities, capability)
}

func capabilityMiss(capabilities []string, r *Request) string {
	if len(r.Capabilities) == 0 {
		return "the request holds no capability; the rule asks for " + oneOf(capabilities)
	}
	return fmt.Sprintf("the request holds %s; the rule asks for %s", some(r.Capabilities), oneOf(capabilities))
}

func capabilityWay(capability string) way {
	return way{capability, func(r *Request) { r.Capabilities = []string{capability} }}
}

func unitHolds(unit string, r *Request) bool { return unitIs(unit, r.Unit) }

// unitIs reports whether a unit is the wanted one, or an instance of it.
func unitIs(want, unit string) bool {
	template, instance := templateOf(unit)
	return known(unit) && (want == unit || instance && want == template)
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

func unitMiss(units []string, r *Request) string {
	if !known(r.Unit) {
		return "the request belongs to no unit; the rule asks for " + oneOf(units)
	}
	return fmt.Sprintf("unit %s is not among %s", r.Unit, some(units))
}

func unitWay(unit string) way {
	return way{"in " + unit, func(r *Request) { r.Unit = unit }}
}
