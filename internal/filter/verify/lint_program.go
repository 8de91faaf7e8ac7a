package verify

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// askProgram checks what only the compiled program shows.
func (l *linter) askProgram() error {
	filter := cbpf.Filter{l.build.Program.Insns}
	if err := filter.Check(); err != nil {
		return fmt.Errorf("the program of %s: %w", l.build, err)
	}
	admitted := Admitted(l.build.Program)
	l.archWords(filter, admitted)
	if err := l.swallowed(filter, admitted); err != nil {
		return err
	}
	if err := l.socketcall(filter, admitted); err != nil {
		return err
	}
	if err := l.listener(filter, admitted); err != nil {
		return err
	}
	return l.ioUring(filter, admitted)
}

func (l *linter) listener(f cbpf.Filter, abis []afalg.ABI) error {
	found, err := LintListener(f, abis, l.memo.Ask)
	for _, found := range found {
		at, ok := l.opening("seccomp")
		if !ok {
			at = "/defaultAction"
		}
		l.add(found.Rule, found.Level, at, found.Fix, "%s (%s)", found.Message, l.build)
	}
	return err
}

// Admitted lists the ABIs that a compiled program does not kill as a whole.
func Admitted(p *seccomp.Program) []afalg.ABI {
	var abis []afalg.ABI
	for _, a := range p.Arches {
		if abi, ok := afalg.ABIOf(string(a)); ok {
			abis = append(abis, abi)
		}
	}
	return abis
}

func (l *linter) archWords(f cbpf.Filter, abis []afalg.ABI) {
	for _, found := range LintProgram(f[0], cbpf.EndianOf(abis[0].BigEndian())) {
		l.add(found.Rule, found.Level, "/defaultAction", found.Fix, "%s (%s)", found.Message, l.build)
	}
}

// LintProgram lists the faults of a checked program by itself.
func LintProgram(p cbpf.Program, e cbpf.Endian) []Finding {
	for _, w := range archWords(p) {
		if !isABI(w.word, e) {
			return []Finding{{Rule: ruleNoABI, Level: Error,
				Message: fmt.Sprintf("instruction %d compares the ABI word with %#x, which is no ABI of a %s machine", w.pc, w.word, e),
				Fix:     "deny socketcall by argument (call 1), or add a rule for a call that every ABI has, and verify again",
			}}
		}
	}
	return nil
}

// swallowed checks, for every rule beside a more permissive one for the same
// call, whether the filter obeys the rule.
func (l *linter) swallowed(f cbpf.Filter, abis []afalg.ABI) error {
	for _, r := range l.rules {
		for _, name := range r.Names {
			wider := slices.IndexFunc(l.rules, func(w placed) bool {
				return permissiveness(normal(w.Action)) > permissiveness(normal(r.Action)) && slices.Contains(w.Names, name)
			})
			if wider < 0 {
				continue
			}
			witness, action, err := l.overruled(f, abis, r, name)
			if err != nil {
				return err
			}
			if witness != nil {
				level := Warning
				if reachesSocket(name) {
					level = Error
				}
				l.add(ruleSwallowed, level, r.path()+"/action",
					fmt.Sprintf("narrow syscalls[%d], so that the two do not meet", l.rules[wider].index),
					"%s is not denied as this rule says: syscalls[%d] is wider, and the filter answers %s to %s (%s)",
					name, l.rules[wider].index, action, witness, l.build)
				break
			}
		}
	}
	return nil
}

// overruled looks for an input of a rule for which the filter is more
// permissive than the rule.
func (l *linter) overruled(f cbpf.Filter, abis []afalg.ABI, r placed, name string) (*cbpf.Data, string, error) {
	limit := cbpf.Kind(permissiveness(normal(r.Action)))
	for _, abi := range abis {
		nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
		if err != nil {
			continue // the ABI lacks the call
		}
		for _, region := range regionsOf(r.Args) {
			region = region.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
			if abi.Kind != afalg.Native && !clearUpper(&region) {
				continue
			}
			out, err := f.Actions(region, cbpf.EndianOf(abi.BigEndian()), 0)
			if err != nil {
				return nil, "", fmt.Errorf("the program of %s: %w", l.build, err)
			}
			for kind := limit + 1; kind < cbpf.NumKinds; kind++ {
				if found, ok := out.Of(kind); ok {
					return &found.Witness, found.Action.String(), nil
				}
			}
		}
	}
	return nil, "", nil
}

// clearUpper sets the upper halves, which libseccomp does not compare for the
// 32-bit ABIs and for x32. It returns false if the region requires other
// values.
func clearUpper(r *cbpf.Region) bool {
	for i := range 6 {
		if !r[cbpf.ArgHigh(i)].Contains(0) {
			return false
		}
		r[cbpf.ArgHigh(i)] = cbpf.Exactly(0)
	}
	return true
}

// socketcall reports that socketcall is allowed, or the effect of a condition
// on socket on it.
func (l *linter) socketcall(f cbpf.Filter, abis []afalg.ABI) error {
	for _, abi := range abis {
		i := slices.IndexFunc(abi.Calls(afalg.Family), func(c afalg.Call) bool { return c.Route == afalg.RouteCompatSocketcall })
		if i < 0 {
			continue
		}
		v, err := l.memo.Ask(f, ofCall(abi.Calls(afalg.Family)[i]), Options{})
		if err != nil {
			return err
		}
		if v.State == Closed {
			l.closedSocketcall(abi)
		} else {
			l.openSocketcall(abi)
		}
	}
	return nil
}

const useLSM = "seccomp cannot tell the families apart here: deny socketcall (32-bit programs that use it get no sockets), or close AF_ALG with an LSM rule"

func (l *linter) openSocketcall(abi afalg.ABI) {
	conditional := slices.IndexFunc(l.rules, conditionOnSocket)
	if at, ok := l.opening("socketcall"); ok {
		l.add(ruleSocketcall, Warning, at, useLSM, "socketcall is allowed: on %s it reaches every socket family", abi.Name)
	} else if conditional >= 0 && l.opens(l.rules[conditional]) {
		l.add(ruleCompanion, Warning, l.rules[conditional].path()+"/names", useLSM+"; a rule for socketcall with an errno other than the default's denies it",
			"a condition on socket makes libseccomp allow socketcall(SYS_SOCKET) on %s, for every family", abi.Name)
	} else {
		l.add(ruleSocketcall, Warning, "/defaultAction", useLSM, "no rule denies socketcall: on %s it reaches every socket family", abi.Name)
	}
}

func (l *linter) closedSocketcall(abi afalg.ABI) {
	named := slices.ContainsFunc(l.rules, func(r placed) bool { return slices.Contains(r.Names, "socketcall") })
	conditional := slices.IndexFunc(l.rules, conditionOnSocket)
	if named || conditional < 0 || l.opens(l.rules[conditional]) {
		return
	}
	l.add(ruleCompanion, Note, l.rules[conditional].path()+"/names", "write a rule for socketcall, so that the text shows it",
		"a condition on socket makes libseccomp deny socketcall(SYS_SOCKET) on %s, for every family", abi.Name)
}

func conditionOnSocket(r placed) bool { return len(r.Args) > 0 && slices.Contains(r.Names, "socket") }

// opening finds the name of a call in a rule that permits it.
func (l *linter) opening(call string) (path string, ok bool) {
	for _, r := range l.rules {
		if i := slices.Index(r.Names, call); i >= 0 && l.opens(r) {
			return fmt.Sprintf("%s/names/%d", r.path(), i), true
		}
	}
	return "", false
}

// ioUring reports the first call of io_uring that gets through.
func (l *linter) ioUring(f cbpf.Filter, abis []afalg.ABI) error {
	for _, abi := range abis {
		for _, call := range abi.Calls(afalg.Family) {
			if call.Route != afalg.RouteIOUring {
				continue
			}
			v, err := l.memo.Ask(f, ofCall(call), Options{})
			if err != nil {
				return err
			}
			if v.State == Closed {
				continue
			}
			at, ok := l.opening(call.Name)
			if !ok {
				at = "/defaultAction"
			}
			l.add(ruleIOUring, Warning, at, "deny io_uring_setup, io_uring_enter and io_uring_register",
				"%s is not denied on %s", call.Name, abi.Name)
			return nil
		}
	}
	return nil
}
