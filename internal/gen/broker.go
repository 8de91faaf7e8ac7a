package gen

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// trapped is a call on a socket that the broker answers, with the comparison
// that tells a session with AF_ALG from other sockets. The comparison need not
// be exact: the workload holds no AF_ALG socket on which the call could do harm.
type trapped struct {
	name   string
	arg    uint
	value  uint64
	narrow bool // the argument is an int
}

var trappedCalls = []trapped{
	{"bind", 2, afalg.SockaddrSize, true},
	{"setsockopt", 1, unix.SOL_ALG, true},
	{"accept", 1, 0, false}, // no address: AF_ALG has none to give
	{"accept4", 1, 0, false},
}

// socketcallBrokered are the numbers of socketcall(2) that the broker answers
// (linux/net.h): socket, bind, accept, socketpair, setsockopt, accept4.
var socketcallBrokered = []uint64{1, 2, 5, 8, 14, 18}

// socketcallLimit is one above the last number of socketcall, SYS_SENDMMSG.
const socketcallLimit = 21

// brokerNames lists the calls that only a broker makes hardening touch.
func (c closing) brokerNames() []string {
	if !c.broker {
		return nil
	}
	names := []string{"prctl"}
	for _, t := range trappedCalls {
		names = append(names, t.name)
	}
	return names
}

// CheckBroker tells whether a path can be the broker's socket: a runtime may
// work in another directory, and writes the path as JSON.
func CheckBroker(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("socket %q: the path must be absolute", path)
	case len(path) >= len(unix.RawSockaddrUnix{}.Path):
		return fmt.Errorf("socket %.40q…: a path of %d bytes, where a Unix socket takes %d",
			path, len(path), len(unix.RawSockaddrUnix{}.Path)-1)
	case !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("socket %q: the path holds control characters, or is not UTF-8", path)
	}
	return nil
}

func checkSocketcall(s Socketcall, broker bool) error {
	switch s {
	case "", SocketcallDeny, SocketcallKeep:
		return nil
	case SocketcallBroker:
		if broker {
			return nil
		}
		return fmt.Errorf("socketcall is left to the broker, and there is none")
	}
	return fmt.Errorf("unknown treatment of socketcall %q", s)
}

func notify(name string, args ...specs.LinuxSeccompArg) profile.Rule {
	return profile.Rule{
		Comment: "afalg-policy: the broker answers", Names: []string{name}, Action: specs.ActNotify, Args: args,
	}
}

// brokerRules hand the calls of a session to the broker, and keep a process
// from changing what /proc shows of it.
func (h *hardener) brokerRules(touched map[string][]profile.Rule) ([]profile.Rule, error) {
	var rules []profile.Rule
	for _, t := range trappedCalls {
		r, err := h.trap(t, touched[t.name])
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	r, err := h.prctlRules(touched["prctl"])
	return append(rules, r...), err
}

// trap notifies of a call where the base permits it. libseccomp lets a broad
// permission swallow the notification, in either order: each is divided into
// the part that stays and the part that is notified.
func (h *hardener) trap(t trapped, base []profile.Rule) ([]profile.Rule, error) {
	if isPermissive(h.base.DefaultAction) {
		if err := h.onePermission(t.name, base); err != nil {
			return nil, err
		}
		rules := denials(base)
		if refusesAll(rules) {
			h.change.missing = append(h.change.missing, t.name)
			return rules, nil
		}
		return append(rules, notify(t.name, t.subtrahend())), nil
	}
	var rules []profile.Rule
	notified := false
	for _, r := range base {
		parts, err := t.divide(r)
		if err != nil {
			return nil, err
		}
		rules = append(rules, parts...)
		notified = notified || slices.ContainsFunc(parts, func(p profile.Rule) bool { return p.Action == specs.ActNotify })
	}
	if !notified {
		h.change.missing = append(h.change.missing, t.name)
	}
	return rules, nil
}

// refusesAll tells whether a rule needs no comparison to apply.
func refusesAll(denied []profile.Rule) bool {
	return slices.ContainsFunc(denied, func(r profile.Rule) bool {
		return len(r.Args) == 0 && everywhere(r)
	})
}

// everywhere tells whether a rule applies on every host.
func everywhere(r profile.Rule) bool {
	empty := func(c *profile.Condition) bool {
		return c == nil || len(c.Caps) == 0 && len(c.Arches) == 0 && c.MinKernel == ""
	}
	return empty(r.Includes) && empty(r.Excludes)
}

func (t trapped) compare(op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: t.arg, Op: op, Value: t.value}
}

// subtrahend is the comparison for a profile that allows by default.
func (t trapped) subtrahend() specs.LinuxSeccompArg {
	if !t.narrow {
		return t.compare(specs.OpEqualTo)
	}
	low := lowEquals(t.value)
	low.Index = t.arg
	return low
}

// divide takes the broker's part out of a permission.
func (t trapped) divide(r profile.Rule) ([]profile.Rule, error) {
	if !isPermissive(r.Action) {
		return []profile.Rule{r}, nil
	}
	i := slices.IndexFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index == t.arg })
	if i < 0 {
		unlike := r
		unlike.Args = append(slices.Clone(r.Args), t.compare(specs.OpNotEqual))
		return []profile.Rule{unlike, t.notified(r, append(slices.Clone(r.Args), t.compare(specs.OpEqualTo)))}, nil
	}
	a := r.Args[i]
	holds, err := matches(a, t.value)
	switch {
	case err != nil:
		return nil, err
	case !holds:
		return []profile.Rule{r}, nil
	case a.Op == specs.OpEqualTo:
		return []profile.Rule{t.notified(r, r.Args)}, nil
	}
	return nil, fmt.Errorf("a rule for %s compares argument %d already (%s %d), and one rule compares an argument once: the part of the broker, %d, cannot be taken out; list the values with SCMP_CMP_EQ",
		t.name, t.arg, a.Op, a.Value, t.value)
}

// notified is the notification that applies where a permission did.
func (t trapped) notified(r profile.Rule, args []specs.LinuxSeccompArg) profile.Rule {
	n := notify(t.name, args...)
	n.Includes, n.Excludes = r.Includes, r.Excludes
	return n
}

// onePermission refuses rules of a profile that allows by default which would
// swallow ours.
func (h *hardener) onePermission(name string, base []profile.Rule) error {
	for _, r := range base {
		if isPermissive(r.Action) && r.Action != h.base.DefaultAction {
			return fmt.Errorf("a rule gives %s the action %s while the default is %s: libseccomp would let it swallow what is added; give the call one permissive action",
				name, r.Action, h.base.DefaultAction)
		}
	}
	return nil
}

// brokeredSocketcall is socketcallRules with a broker. What libseccomp adds for
// socketcall differs from call to call then, and it refuses a profile in which
// they meet, or adds notifications that nobody asked for: a wider rule has to
// come first and swallow them all.
func (h *hardener) brokeredSocketcall(base []profile.Rule) ([]profile.Rule, error) {
	allows := isPermissive(h.base.DefaultAction)
	permitted := slices.DeleteFunc(slices.Clone(base), func(r profile.Rule) bool { return !isPermissive(r.Action) })
	h.change.socketcall = len(permitted) > 0 || allows && !refusesAll(base)
	if h.change.socketcall && !allows && h.socketcall == SocketcallKeep {
		return base, nil
	}
	if !h.change.socketcall || h.socketcall != SocketcallBroker {
		return h.denySocketcall(), nil
	}
	var rules []profile.Rule
	for _, call := range socketcallBrokered {
		rules = append(rules, notify("socketcall", equals(call)))
		if allows {
			rules = append(rules, notify("socketcall", lowEquals(call)))
		}
	}
	if allows {
		if err := h.onePermission("socketcall", base); err != nil {
			return nil, err
		}
		return append(rules, denials(base)...), nil
	}
	kept, err := socketcallRest(permitted)
	return slices.Concat(rules, kept, denials(base)), err
}

// socketcallRest lists the calls that a base permits and the broker does not
// answer.
func socketcallRest(permitted []profile.Rule) ([]profile.Rule, error) {
	var rules []profile.Rule
	for _, r := range permitted {
		if !everywhere(r) || len(r.Args) > 1 || len(r.Args) == 1 && r.Args[0].Index != 0 {
			return nil, fmt.Errorf("the rule for socketcall has conditions besides the number of the call: it cannot be left to the broker; use --socketcall deny")
		}
	}
	for call := range uint64(socketcallLimit) {
		i := slices.IndexFunc(permitted, func(r profile.Rule) bool {
			holds, err := matches(append(slices.Clone(r.Args), always(0))[0], call)
			return err == nil && holds
		})
		switch brokered := slices.Contains(socketcallBrokered, call); {
		case brokered && i < 0:
			return nil, fmt.Errorf("the base lets only some calls of socketcall through, and call %d is not one of them: it cannot be left to the broker; use --socketcall deny", call)
		case !brokered && i >= 0:
			r := permitted[i]
			r.Args = []specs.LinuxSeccompArg{equals(call)}
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// narrower makes the rules that libseccomp adds for socketcall narrower than
// those that leave it to the broker: only then are they swallowed.
func (h *hardener) narrower(rules []profile.Rule) []profile.Rule {
	if !h.broker || h.socketcall != SocketcallBroker {
		return rules
	}
	out := slices.Clone(rules)
	for i, r := range out {
		if !slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Index != 0 }) {
			out[i].Args = append(slices.Clone(r.Args), always(1))
		}
	}
	return out
}
