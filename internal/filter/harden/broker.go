package harden

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
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
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

var trappedCalls = func() (all []trapped) {
	for _, c := range afalg.BrokeredCalls() {
		if !c.Makes {
			all = append(all, trapped{c.Name, c.Arg, c.Value, c.Int})
		}
	}
	return all
}()

// brokerNames lists the calls that only a broker makes hardening touch.
func (c closing) brokerNames() []string {
	if !c.broker {
		return nil
	}
	names := []string{"prctl", callSeccomp, callGetfd}
	for _, t := range trappedCalls {
		names = append(names, t.name)
	}
	return names
}

// advise names what in a base most likely keeps it from being proved with a
// broker: conditions on calls of which a part is taken out for it.
func (c closing) advise(base *profile.Profile, failed error) error {
	var where []string
	for i, r := range base.Syscalls {
		for _, t := range trappedCalls {
			if c.broker && len(r.Args) > 0 && slices.Contains(r.Names, t.name) {
				where = append(where, fmt.Sprintf("syscalls[%d] (%s)", i, t.name))
			}
		}
	}
	if where == nil {
		return failed
	}
	return fmt.Errorf("%w; the broker takes a part of bind, setsockopt and accept, and the base has conditions on them: %s; permit or deny these calls whole, or harden without a broker",
		failed, strings.Join(where, ", "))
}

// CheckBroker reports whether a path can be the broker's socket: a runtime may
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

func notify(name string, args ...specs.LinuxSeccompArg) profile.Rule {
	return profile.Rule{
		Comment: "afalg-policy: the broker answers", Names: []string{name}, Action: specs.ActNotify, Args: args,
	}
}

// brokerRules hand the calls of a session to the broker, keep a process from
// changing what /proc shows of it, and keep others out of the broker's place.
func (h *hardener) brokerRules(touched map[string][]profile.Rule) ([]profile.Rule, error) {
	if !h.broker {
		return nil, nil
	}
	var rules []profile.Rule
	for _, t := range trappedCalls {
		r, err := h.trap(t, touched[t.name])
		if err == nil && t.name == callSetsockopt {
			r, err = h.closeOptions(r)
		}
		if err != nil {
			return nil, err
		}
		if h.apart {
			r = h.narrower(r)
		}
		rules = append(rules, r...)
	}
	for _, closed := range []struct {
		name    string
		rewrite func([]profile.Rule) ([]profile.Rule, error)
	}{{"prctl", h.prctlRules}, {callSeccomp, h.listenerRules}, {callGetfd, h.getfdRules}} {
		r, err := closed.rewrite(touched[closed.name])
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	return rules, nil
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
		h.change.depart("", t.name, t.part())
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
	h.change.depart("", t.name, t.part())
	if !notified {
		h.change.missing = append(h.change.missing, t.name)
	}
	return rules, nil
}

// refusesAll reports whether a rule needs no comparison to apply.
func refusesAll(denied []profile.Rule) bool { return slices.ContainsFunc(denied, refusesEverything) }

func refusesEverything(r profile.Rule) bool {
	return !isPermissive(r.Action) && len(r.Args) == 0 && everywhere(r)
}

// everywhere reports whether a rule applies on every host.
func everywhere(r profile.Rule) bool {
	empty := func(c *profile.Condition) bool {
		return c == nil || len(c.Caps) == 0 && len(c.Arches) == 0 && c.MinKernel == ""
	}
	return empty(r.Includes) && empty(r.Excludes)
}

func (t trapped) compare(op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: t.arg, Op: op, Value: t.value}
}

// part is what the broker answers of the call. Upper halves are left free:
// the kernel takes an int, or the ABI has 32 bits.
func (t trapped) part() cbpf.Region { return argument(int(t.arg), uint32(t.value)) }

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
	case a == bound{index: t.arg}.compare(specs.OpLessThan, intLimit):
		// An earlier hardening bounded it, and equality is asked for first.
		args := slices.Clone(r.Args)
		args[i] = t.compare(specs.OpEqualTo)
		return []profile.Rule{r, t.notified(r, args)}, nil
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
// swallow ours. Those about other families than the closed ones are none.
func (h *hardener) onePermission(name string, base []profile.Rule, closed ...uint32) error {
	for _, r := range base {
		apart := len(closed) > 0 && !slices.ContainsFunc(closed, func(f uint32) bool { return reaches(r, f) })
		if isPermissive(r.Action) && r.Action != h.base.DefaultAction && !apart {
			return fmt.Errorf("a rule gives %s the action %s while the default is %s: libseccomp would let it swallow what is added; give the call one permissive action",
				name, r.Action, h.base.DefaultAction)
		}
	}
	return nil
}
