package seccomp

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// maxArgs is the number of arguments that seccomp sees. crun reads no more
// conditions than that in one rule.
const maxArgs = 6

// rule is one rule for one system call, as the runtimes split profiles.
type rule struct {
	name   string
	action libseccomp.ScmpAction
	// conds holds alternatives; the comparisons of one must all hold. An
	// unconditional rule has none.
	conds [][]libseccomp.ScmpCondition
}

var operators = map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
	specs.OpNotEqual:     libseccomp.CompareNotEqual,
	specs.OpLessThan:     libseccomp.CompareLess,
	specs.OpLessEqual:    libseccomp.CompareLessOrEqual,
	specs.OpEqualTo:      libseccomp.CompareEqual,
	specs.OpGreaterEqual: libseccomp.CompareGreaterEqual,
	specs.OpGreaterThan:  libseccomp.CompareGreater,
	specs.OpMaskedEqual:  libseccomp.CompareMaskedEqual,
}

var actions = map[specs.LinuxSeccompAction]libseccomp.ScmpAction{
	specs.ActKill:        libseccomp.ActKillThread,
	specs.ActKillThread:  libseccomp.ActKillThread,
	specs.ActKillProcess: libseccomp.ActKillProcess,
	specs.ActTrap:        libseccomp.ActTrap,
	specs.ActErrno:       libseccomp.ActErrno,
	specs.ActTrace:       libseccomp.ActTrace,
	specs.ActAllow:       libseccomp.ActAllow,
	specs.ActLog:         libseccomp.ActLog,
	specs.ActNotify:      libseccomp.ActNotify,
}

// action converts an OCI action. The runtimes use EPERM where an errno is
// needed and none is given.
func action(a specs.LinuxSeccompAction, errno *uint) (libseccomp.ScmpAction, error) {
	act, ok := actions[a]
	if !ok {
		return 0, fmt.Errorf("unknown action %q", a)
	}
	if act != libseccomp.ActErrno && act != libseccomp.ActTrace {
		return act, nil
	}
	if errno == nil {
		return act.SetReturnCode(int16(unix.EPERM)), nil
	}
	if *errno > 0xffff {
		return 0, fmt.Errorf("errno %d does not fit into a seccomp action", *errno)
	}
	return act.SetReturnCode(int16(*errno)), nil
}

// permissive actions get no ENOSYS stub from runc: unknown calls go through.
func permissive(a specs.LinuxSeccompAction) bool {
	return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace
}

// expand lists one rule per system call name, in the order of the profile.
func expand(profile *specs.LinuxSeccomp) ([]rule, error) {
	var rules []rule
	for i, s := range profile.Syscalls {
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		conds, err := conditions(s.Args)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		for _, name := range s.Names {
			rules = append(rules, rule{name, act, conds})
		}
	}
	return rules, nil
}

// conditions splits comparisons as runc and crun do. libseccomp takes one for
// each argument. So if an index appears twice, every comparison becomes a rule
// of its own, and AND becomes OR.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	if len(args) == 0 {
		return nil, nil
	}
	if len(args) > maxArgs {
		return nil, fmt.Errorf("%d comparisons in one rule: crun reads %d and ignores the rest", len(args), maxArgs)
	}
	var all []libseccomp.ScmpCondition
	for _, a := range args {
		op, ok := operators[a.Op]
		if !ok {
			return nil, fmt.Errorf("unknown operator %q", a.Op)
		}
		c, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, fmt.Errorf("comparison of argument %d: %w", a.Index, err)
		}
		all = append(all, c)
	}
	if !repeats(args) {
		return [][]libseccomp.ScmpCondition{all}, nil
	}
	var alternatives [][]libseccomp.ScmpCondition
	for _, c := range all {
		alternatives = append(alternatives, []libseccomp.ScmpCondition{c})
	}
	return alternatives, nil
}

// repeats reports whether an argument is compared twice.
func repeats(args []specs.LinuxSeccompArg) bool {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}

// add puts the rule into the filter. Like the runtimes it skips rules that
// equal the default action and calls that libseccomp does not know.
func (r rule) add(filter *libseccomp.ScmpFilter, def libseccomp.ScmpAction) error {
	if r.action == def {
		return nil
	}
	nr, err := libseccomp.GetSyscallFromName(r.name)
	if err != nil {
		return nil
	}
	if len(r.conds) == 0 {
		if err := filter.AddRule(nr, r.action); err != nil {
			return fmt.Errorf("adding a rule for %s: %w", r.name, contradicted(err))
		}
		return nil
	}
	for _, c := range r.conds {
		if err := filter.AddRuleConditional(nr, r.action, c); err != nil {
			return fmt.Errorf("adding a conditional rule for %s: %w", r.name, contradicted(err))
		}
	}
	return nil
}

// contradicted says what libseccomp means by its error.
func contradicted(err error) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	return fmt.Errorf("%w: another rule answers the same calls otherwise, maybe by what libseccomp adds for socketcall to each rule for socket and its like, and no runtime loads the profile", err)
}
