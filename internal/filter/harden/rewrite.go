package harden

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

var ioUringCalls = []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}

// lowWord masks the half of an argument that the kernel reads as an int.
const lowWord = 0xffffffff

// closing is what a profile is hardened against.
type closing struct {
	classes    // AF_ALG is closed for socketpair, and for socket unless granted
	errno      uint
	socketcall Socketcall
	granted    bool // socket(AF_ALG) stays open
	broker     bool // socket(AF_ALG) is left to the broker
	// apart keeps what libseccomp adds for socketcall away from our rules for
	// it. It costs a few instructions, and is for bases that need it.
	apart bool
	// revive lets the base's own denials of sockets hold again where libseccomp
	// compiled them away.
	revive bool
}

// change tells what hardening did to a base, as far as gaps depend on it.
type change struct {
	highbits   bool     // other families lost calls with high bits
	socketRest bool     // of socket
	socketcall bool     // the base let socketcall through
	prctl      bool     // and prctl
	seccomp    bool     // and seccomp with flags that serve a listener
	getfd      bool     // and pidfd_getfd
	missing    []string // calls of a session that the base refuses
	unmade     bool     // sockets of socketcall that the base denies in part
	stub       bool     // runc's ENOSYS stub answers other calls
	revived    bool     // denials of the base that its program lacks
	options    bool     // socketcall sets no options, though a broker answers the rest
	ints       bool     // calls with high bits in an int are refused
	departures []departure
}

// isPermissive lists the actions after which the call may run.
func isPermissive(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify:
		return true
	}
	return false
}

// rewrite returns the profile with every route closed. libseccomp unites the
// rules of a profile, so that a denial inside a wider permission does nothing:
// permissions are rewritten to leave the families out, and a denial only
// chooses the errno. The base was checked, and is not changed.
func rewrite(base *profile.Profile, c closing) (*profile.Profile, change, error) {
	out := *base
	touched, rest := split(base.Syscalls, slices.Concat(c.brokerNames(), c.callNames())...)
	h := hardener{closing: c, base: base}
	socketcall, err := h.socketcallRules(touched)
	if err != nil {
		return nil, change{}, err
	}
	socket, err := h.familyRules("socket", touched["socket"])
	if err != nil {
		return nil, change{}, err
	}
	socketpair, err := h.familyRules("socketpair", touched["socketpair"])
	if err != nil {
		return nil, change{}, err
	}
	if h.revive {
		h.reviveDenials("socket", touched["socket"])
		h.reviveDenials("socketpair", touched["socketpair"])
	}
	rules := slices.Concat(socketcall, h.anchor(socketcall, socket), socket, socketpair)
	for _, name := range ioUringCalls {
		rules = append(rules, h.ioUringRules(name, touched[name])...)
	}
	for _, further := range []func(map[string][]profile.Rule) ([]profile.Rule, error){h.brokerRules, h.optionRules, h.namespaceRules} {
		r, err := further(touched)
		if err != nil {
			return nil, change{}, err
		}
		rules = append(rules, r...)
	}
	out.Syscalls = append(rules, rest...)
	return &out, h.change, nil
}

// checkBase refuses what cannot be hardened.
func checkBase(p *profile.Profile) error {
	if p.ListenerPath != "" {
		return p.Errorf("/listenerPath", "the profile has a listener of its own (%s): what it answers cannot be proved", p.ListenerPath)
	}
	if p.DefaultAction == specs.ActNotify {
		return fmt.Errorf("the default action is SCMP_ACT_NOTIFY: no runtime loads such a profile")
	}
	if !knownAction(p.DefaultAction) {
		return fmt.Errorf("unknown default action %q", p.DefaultAction)
	}
	for i, r := range p.Syscalls {
		at := func(format string, args ...any) error {
			call := "no call"
			if len(r.Names) > 0 {
				call = r.Names[0]
			}
			return fmt.Errorf("syscalls[%d] (%s): %s", i, call, fmt.Sprintf(format, args...))
		}
		if !knownAction(r.Action) {
			return at("unknown action %q", r.Action)
		}
		if r.Action == specs.ActNotify {
			return at("SCMP_ACT_NOTIFY hands the call to a listener, whose answers cannot be proved")
		}
		for _, a := range r.Args {
			if a.Index > 5 {
				return at("argument index %d: system calls have arguments 0 to 5", a.Index)
			}
			if _, err := matches(a, 0); err != nil {
				return at("%v", err)
			}
		}
	}
	return nil
}

func knownAction(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap, specs.ActErrno:
		return true
	}
	return isPermissive(a)
}

// split takes the rules of the calls that hardening is about out of a profile,
// one name and one set of comparisons each. further are the calls besides those
// of the routes.
func split(rules []profile.Rule, further ...string) (touched map[string][]profile.Rule, rest []profile.Rule) {
	touched = map[string][]profile.Rule{}
	ours := slices.Concat([]string{"socket", "socketpair", "socketcall"}, ioUringCalls, further)
	for _, r := range rules {
		names := slices.Clone(r.Names)
		for _, name := range ours {
			if !slices.Contains(names, name) {
				continue
			}
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
			for _, args := range alternatives(r.Args) {
				one := r
				one.Names, one.Args = []string{name}, args
				touched[name] = append(touched[name], one)
			}
		}
		if len(names) > 0 {
			r.Names = names
			rest = append(rest, r)
		}
	}
	return touched, rest
}

// alternatives splits comparisons as the runtimes do: where an argument stands
// twice, each comparison becomes a rule.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			var each [][]specs.LinuxSeccompArg
			for _, a := range args {
				each = append(each, []specs.LinuxSeccompArg{a})
			}
			return each
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

type hardener struct {
	closing
	base   *profile.Profile
	change change
}

// deny makes an ERRNO rule, or none where the runtimes would drop it as equal
// to the default action.
func (h *hardener) deny(comment, name string, errno uint, args ...specs.LinuxSeccompArg) []profile.Rule {
	if h.isDefault(errno) {
		return nil
	}
	return []profile.Rule{{
		Comment: comment, Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno, Args: args,
	}}
}

func (h *hardener) isDefault(errno uint) bool {
	if h.base.DefaultAction != specs.ActErrno {
		return false
	}
	def := uint(unix.EPERM)
	if h.base.DefaultErrnoRet != nil {
		def = *h.base.DefaultErrnoRet
	}
	return def == errno
}

// ioUringRules close a call altogether. ENOSYS is what a kernel without
// io_uring answers.
func (h *hardener) ioUringRules(name string, base []profile.Rule) []profile.Rule {
	const why = "afalg-policy: io_uring makes sockets that seccomp does not see"
	if !isPermissive(h.base.DefaultAction) {
		if !slices.ContainsFunc(base, func(r profile.Rule) bool { return isPermissive(r.Action) }) {
			return base
		}
		h.change.depart("", name)
		return h.deny(why, name, uint(unix.ENOSYS))
	}
	h.change.depart("", name)
	if name == ioUringCalls[0] {
		// libseccomp 2.5.4 to 2.6.1 compile a list without any unconditional
		// rule of the ABI to code that never loads the call number.
		return h.deny(why, name, uint(unix.ENOSYS))
	}
	// libseccomp asks for the calls with the fewest comparisons first, and
	// socket is the one that must not wait behind these.
	return h.deny(why, name, uint(unix.ENOSYS), always(0), always(1))
}

// always is a comparison that holds for every value.
func always(index uint) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Op: specs.OpGreaterEqual}
}

func permissive(rules []profile.Rule) []profile.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r profile.Rule) bool { return !isPermissive(r.Action) })
}

func denials(rules []profile.Rule) []profile.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r profile.Rule) bool { return isPermissive(r.Action) })
}

// equals is one family as every runtime compares it: on all 64 bits.
func equals(v uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: v}
}

// lowEquals compares the int that the kernel takes. Runtimes disagree on the
// order of the operands of a masked comparison, so it only ever denies.
func lowEquals(v uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 0, Op: specs.OpMaskedEqual, Value: lowWord, ValueTwo: v}
}

// closed lists the families that are closed for a call.
func (h *hardener) closed(name string) []uint32 {
	if !h.granted || name != "socket" {
		return h.families
	}
	return slices.DeleteFunc(slices.Clone(h.families), func(f uint32) bool { return f == afalg.Family })
}
