package harden

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// familyLimit is one above the last family of any kernel so far (AF_MCTP, 45).
// Above it every kernel answers EAFNOSUPPORT.
const familyLimit = 46

// rangePays is the length from which on one comparison with LT is cheaper than
// one EQ for each family: libseccomp compiles it to five instructions.
const rangePays = 6

// matches evaluates a comparison of argument 0 as libseccomp does, on 64 bits.
func matches(a specs.LinuxSeccompArg, v uint64) (bool, error) {
	switch a.Op {
	case specs.OpNotEqual:
		return v != a.Value, nil
	case specs.OpLessThan:
		return v < a.Value, nil
	case specs.OpLessEqual:
		return v <= a.Value, nil
	case specs.OpEqualTo:
		return v == a.Value, nil
	case specs.OpGreaterEqual:
		return v >= a.Value, nil
	case specs.OpGreaterThan:
		return v > a.Value, nil
	case specs.OpMaskedEqual:
		return v&a.Value == a.ValueTwo, nil
	}
	return false, fmt.Errorf("unknown operator %q", a.Op)
}

// permission is a permissive rule on socket or socketpair with its families
// taken out of the comparisons.
type permission struct {
	rule     profile.Rule // without the comparison of argument 0
	families [familyLimit]bool
	rest     bool // families above the limit, and high bits
}

// familyRules rewrites the rules of a call that takes a family.
func (h *hardener) familyRules(name string, base []profile.Rule) ([]profile.Rule, error) {
	closed := h.closed(name)
	h.declareFamilies(name, closed)
	h.declareSockets(name)
	if isPermissive(h.base.DefaultAction) {
		rules, err := h.subtract(name, base, closed)
		return h.narrower(rules), err
	}
	opens := name == "socket" && (h.granted || h.broker)
	if len(base) == 0 && !opens {
		return nil, nil // refused, and a rule would move runc's ENOSYS
	}
	base = h.effective(base)
	permissions, err := h.permissions(base, closed)
	if err != nil {
		return nil, err
	}
	if h.granted && name == "socket" {
		permissions = grant(permissions)
	}
	permissions = simplify(permissions, denials(base), closed)
	rules, err := h.listed(name, permissions, base, true)
	ranges := !areTangled(rules)
	if err == nil && !ranges {
		rules, err = h.listed(name, permissions, base, false)
	}
	if slices.ContainsFunc(permissions, func(p permission) bool { return p.rest }) {
		h.change.highbits = true
		h.change.socketRest = h.change.socketRest || ranges && name == "socket"
		h.change.depart(gapHighbits, name, atLeast(0, familyLimit)...)
	}
	return rules, err
}

// effective lists the rules of a call that libseccomp does not throw away: the
// first without a comparison swallows all others.
func (h *hardener) effective(base []profile.Rule) []profile.Rule {
	i := slices.IndexFunc(base, func(r profile.Rule) bool {
		return len(r.Args) == 0 && everywhere(r) && !h.restatesDefault(r)
	})
	if i < 0 {
		return base
	}
	return base[i : i+1]
}

// restatesDefault reports whether the runtimes drop a rule.
func (h *hardener) restatesDefault(r profile.Rule) bool {
	if r.Action == specs.ActErrno {
		return h.isDefault(errnoOf(r))
	}
	return r.Action == h.base.DefaultAction
}

// errnoOf is the errno of a rule; EPERM is what the runtimes fill in.
func errnoOf(r profile.Rule) uint {
	if r.ErrnoRet == nil {
		return uint(unix.EPERM)
	}
	return *r.ErrnoRet
}

// declareFamilies declares what hardening is about.
func (h *hardener) declareFamilies(name string, closed []uint32) {
	for _, f := range closed {
		if h.broker && f == afalg.Family && name == "socket" {
			h.change.open("", name, argument(0, f))
			continue
		}
		h.change.depart("", name, argument(0, f))
	}
	if h.granted && name == "socket" {
		h.change.open("", name, argument(0, afalg.Family))
	}
}

// listed writes permissions and denials in a profile that denies by default,
// with ranges or without.
func (h *hardener) listed(name string, permissions []permission, base []profile.Rule, ranges bool) ([]profile.Rule, error) {
	closed := h.closed(name)
	var rules []profile.Rule
	for _, p := range permissions {
		rules = append(rules, p.encode(ranges, h.narrowFamilies())...)
		if p.rest && ranges {
			rules = append(rules, h.denyRest(name, p.rule)...)
		}
	}
	for _, f := range h.narrowFamilies() {
		own, err := h.ownFamily(name, f, permissions, base, ranges)
		if err != nil {
			return nil, err
		}
		rules = append(rules, own...)
	}
	ours := rules
	for _, r := range denials(base) {
		if !comparesOnly(r, h.families) && !denies(ours, r) {
			rules = append(rules, r)
		}
	}
	return h.narrower(append(rules, h.denyFamilies(name, closed, equals)...)), nil
}

// denyRest refuses what a permission held above the last family, where that
// permission applied.
func (h *hardener) denyRest(name string, r profile.Rule) []profile.Rule {
	above := specs.LinuxSeccompArg{Index: 0, Op: specs.OpGreaterEqual, Value: familyLimit}
	args := append([]specs.LinuxSeccompArg{above}, r.Args...)
	rules := h.deny("afalg-policy: no kernel has these families; the kernel answers the same", name, h.errno, args...)
	for i := range rules {
		rules[i].Includes, rules[i].Excludes = r.Includes, r.Excludes
	}
	return rules
}

func (h *hardener) denyFamilies(name string, closed []uint32, compare func(uint64) specs.LinuxSeccompArg) []profile.Rule {
	var rules []profile.Rule
	for _, f := range closed {
		if h.broker && f == afalg.Family && name == "socket" {
			rules = append(rules, notify(name, compare(uint64(f))))
			continue
		}
		why := fmt.Sprintf("afalg-policy: %s is closed", afalg.FamilyName(f))
		rules = append(rules, h.deny(why, name, h.errno, compare(uint64(f)))...)
	}
	return rules
}

// subtract closes families in a profile that allows by default: denials alone
// do it, as long as no rule permits more widely.
func (h *hardener) subtract(name string, base []profile.Rule, closed []uint32) ([]profile.Rule, error) {
	base = h.effective(base)
	if err := h.onePermission(name, base, slices.Concat(closed, h.narrowFamilies())...); err != nil {
		return nil, err
	}
	rules := slices.DeleteFunc(slices.Clone(base), func(r profile.Rule) bool {
		return r.Action == h.base.DefaultAction || comparesOnly(r, h.families)
	})
	if i := slices.IndexFunc(rules, refusesEverything); i >= 0 && h.broker && name == "socket" {
		// It would swallow the notification.
		r := rules[i]
		r.Args = []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpNotEqual, Value: afalg.Family}}
		return []profile.Rule{r, notify(name, equals(afalg.Family))}, nil
	}
	rules = append(rules, h.denyFamilies(name, closed, lowEquals)...)
	for _, s := range h.narrow {
		rules = append(rules, h.subtractSockets(name, s)...)
	}
	return rules, nil
}

// reaches reports whether a rule may apply to a family, whatever the high bits
// are.
func reaches(r profile.Rule, family uint32) bool {
	i := slices.IndexFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index == 0 })
	if i < 0 {
		return true
	}
	switch a := r.Args[i]; a.Op {
	case specs.OpEqualTo:
		return uint32(a.Value) == family
	case specs.OpMaskedEqual:
		return family&uint32(a.Value) == uint32(a.ValueTwo)
	case specs.OpLessThan:
		return uint64(family) < a.Value
	case specs.OpLessEqual:
		return uint64(family) <= a.Value
	}
	return true
}

// comparesOnly reports whether a denial is about a closed family and nothing
// else: ours replaces it.
func comparesOnly(r profile.Rule, closed []uint32) bool {
	if len(r.Args) != 1 || r.Args[0].Index != 0 {
		return false
	}
	a := r.Args[0]
	switch {
	case a.Op == specs.OpEqualTo:
		return a.Value < familyLimit && slices.Contains(closed, uint32(a.Value))
	case a.Op == specs.OpMaskedEqual && a.Value == lowWord:
		return slices.Contains(closed, uint32(a.ValueTwo))
	}
	return false
}

// permissions collects what the permissive rules allow, less what is closed;
// rules that differ only in the family become one.
func (h *hardener) permissions(base []profile.Rule, closed []uint32) ([]permission, error) {
	var all []permission
	for _, r := range base {
		if !isPermissive(r.Action) {
			continue
		}
		p, err := permissionOf(r, closed)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(q permission) bool { return reflect.DeepEqual(q.rule, p.rule) })
		if i < 0 {
			all = append(all, p)
			continue
		}
		for f, ok := range p.families {
			all[i].families[f] = all[i].families[f] || ok
		}
		all[i].rest = all[i].rest || p.rest
	}
	return all, nil
}

func permissionOf(r profile.Rule, closed []uint32) (permission, error) {
	p := permission{rule: r}
	p.rule.Comment = ""
	p.rule.Args = nil
	any := specs.LinuxSeccompArg{Op: specs.OpGreaterEqual} // >= 0
	family := any
	for _, a := range r.Args {
		if a.Index == 0 {
			family = a
		} else {
			p.rule.Args = append(p.rule.Args, a)
		}
	}
	for f := range p.families {
		ok, err := matches(family, uint64(f))
		if err != nil {
			return p, err
		}
		p.families[f] = ok && !slices.Contains(closed, uint32(f))
	}
	var err error
	p.rest, err = matches(family, familyLimit)
	return p, err
}

// grant opens AF_ALG by its exact number, high bits left out.
func grant(permissions []permission) []permission {
	plain := profile.Rule{Names: []string{"socket"}, Action: specs.ActAllow}
	i := slices.IndexFunc(permissions, func(p permission) bool { return reflect.DeepEqual(p.rule, plain) })
	if i < 0 {
		permissions = append(permissions, permission{rule: plain})
		i = len(permissions) - 1
	}
	permissions[i].families[afalg.Family] = true
	return permissions
}

// simplify lets one range stand for many comparisons where a rule leaves out a
// family only for the sake of one value of another argument: "not AF_NETLINK",
// beside "not that protocol" and a denial of the two together. libseccomp asks
// for equality before it asks for ranges, so the family's own rules are found
// first; should one day the range be, then the kernel's own check of that
// protocol stands.
func simplify(permissions []permission, denied []profile.Rule, closed []uint32) []permission {
	var own []permission
	for i := range permissions {
		p := &permissions[i]
		for f := range p.families {
			if len(p.rule.Args) > 0 || p.families[f] || slices.Contains(closed, uint32(f)) {
				continue
			}
			if rule, ok := complement(*p, f, permissions, denied); ok {
				p.families[f] = true
				q := permission{rule: rule}
				q.families[f] = true
				own = append(own, q)
			}
		}
	}
	wide := slices.DeleteFunc(slices.Clone(permissions), func(q permission) bool {
		return slices.ContainsFunc(permissions, q.within)
	})
	return append(own, wide...)
}

// complement finds the rule that permits a family which p leaves out, if a
// denial covers exactly what that rule does not.
func complement(p permission, family int, all []permission, denied []profile.Rule) (profile.Rule, bool) {
	for _, d := range denied {
		if len(d.Args) != 2 || d.Args[0] != equals(uint64(family)) || d.Args[1].Op != specs.OpEqualTo || !sameScope(p.rule, d) {
			continue
		}
		unlike := d.Args[1]
		unlike.Op = specs.OpNotEqual
		for _, q := range all {
			if q.families[family] && sameScope(p.rule, q.rule) && slices.Equal(q.rule.Args, []specs.LinuxSeccompArg{unlike}) {
				return q.rule, true
			}
		}
	}
	return profile.Rule{}, false
}

// sameScope reports whether two rules apply on the same hosts.
func sameScope(a, b profile.Rule) bool {
	return reflect.DeepEqual(a.Includes, b.Includes) && reflect.DeepEqual(a.Excludes, b.Excludes)
}

// within reports whether whatever q permits, the unconditional p permits too.
func (q permission) within(p permission) bool {
	if len(p.rule.Args) > 0 || len(q.rule.Args) == 0 || q.rule.Action != p.rule.Action || !sameScope(q.rule, p.rule) || q.rest && !p.rest {
		return false
	}
	for f, ok := range q.families {
		if ok && !p.families[f] {
			return false
		}
	}
	return true
}

const gapHighbits = string(afalg.RouteSocketHighbits)

// encode writes the families as comparisons that every runtime reads alike:
// each in a rule of its own, none masked, and none that high bits satisfy. Some
// families have rules of their own, which are asked first: a range may hold them.
func (p permission) encode(ranges bool, own []uint32) []profile.Rule {
	first := 0
	if ranges {
		first = p.below()
	}
	var rules []profile.Rule
	add := func(op specs.LinuxSeccompOperator, v int) {
		r := p.rule
		r.Args = append([]specs.LinuxSeccompArg{{Index: 0, Op: op, Value: uint64(v)}}, p.rule.Args...)
		rules = append(rules, r)
	}
	if first > 0 {
		add(specs.OpLessThan, first)
	}
	for f := first; f < familyLimit; f++ {
		if p.families[f] && !slices.Contains(own, uint32(f)) {
			add(specs.OpEqualTo, f)
		}
	}
	return rules
}

// below is the end of the range of families from 0 on that a permission is
// written with; 0 if a range does not pay.
func (p permission) below() int {
	first := 0
	for first < familyLimit && p.families[first] {
		first++
	}
	if first < rangePays {
		return 0
	}
	return first
}
