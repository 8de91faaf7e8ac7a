package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Build is a program that was compiled from a document.
type Build struct {
	Host    profile.Host
	Runtime seccomp.Runtime
	Program *seccomp.Program
}

func (b Build) String() string {
	return fmt.Sprintf("%s, libseccomp %s, level %d, %s", b.Runtime, seccomp.Version(), b.Program.Level, profile.ShortName(b.Host.Arch))
}

// Lint lists the faults of the text, as far as the machines of the builds are
// concerned, in the order of the text. It asks the programs what the filter
// does, through memo: routes are asked about again later.
func (d *Document) Lint(builds []Build, memo *Memo) ([]Finding, error) {
	if d.Unfiltered() {
		return []Finding{d.unfiltered()}, nil
	}
	l := &linter{d: d, memo: memo}
	l.keys()
	l.idle()
	for _, b := range builds {
		if err := l.lint(b); err != nil {
			return nil, err
		}
	}
	return sortFindings(l.found), nil
}

func (d *Document) unfiltered() Finding {
	message, fix := "no linux.seccomp: the container runs without a filter", "write one with afalg-policy generate oci"
	if d.Kind != KindConfig {
		message, fix = "the profile filters nothing: without a defaultAction and rules, Docker and runc start the container without a filter", "write one with afalg-policy generate seccomp"
	}
	line, column := d.text.At("")
	return Finding{ruleUnfiltered, Error, line, column, message, fix}
}

type linter struct {
	d     *Document
	memo  *Memo
	build Build
	rules []placed // those that hold on the machine and are not skipped
	found []Finding
}

// placed is a rule and its index in the text.
type placed struct {
	profile.Rule
	index int
}

func (r placed) path() string { return fmt.Sprintf("/syscalls/%d", r.index) }

func (l *linter) add(rule string, level Level, path, fix, format string, args ...any) {
	line, column := l.d.text.At(path)
	l.found = append(l.found, Finding{rule, level, line, column, fmt.Sprintf(format, args...), fix})
}

func (l *linter) lint(b Build) error {
	l.build, l.rules = b, nil
	for i, r := range l.d.Profile.Syscalls {
		holds, err := r.Applies(b.Host)
		if err != nil {
			return fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if !holds || len(r.Names) == 0 {
			continue
		}
		if l.unknownCalls(placed{r, i}); l.equalsDefault(placed{r, i}) {
			continue
		}
		l.rules = append(l.rules, placed{r, i})
	}
	for _, r := range l.rules {
		l.comparisons(r)
	}
	l.architectures()
	return l.askProgram()
}

// permissiveness orders actions as the kernel does, the most permissive last.
// It is -1 for anything but an action.
func permissiveness(a specs.LinuxSeccompAction) int {
	return slices.Index(actionOrder, a)
}

var actionOrder = []specs.LinuxSeccompAction{
	cbpf.KillProcess: specs.ActKillProcess,
	cbpf.KillThread:  specs.ActKillThread,
	cbpf.Trap:        specs.ActTrap,
	cbpf.Errno:       specs.ActErrno,
	cbpf.UserNotif:   specs.ActNotify,
	cbpf.Trace:       specs.ActTrace,
	cbpf.Log:         specs.ActLog,
	cbpf.Allow:       specs.ActAllow,
}

func normal(a specs.LinuxSeccompAction) specs.LinuxSeccompAction {
	if a == specs.ActKill {
		return specs.ActKillThread
	}
	return a
}

// opens reports whether a rule permits calls that the default does not.
func (l *linter) opens(r placed) bool {
	return permissiveness(normal(r.Action)) > permissiveness(normal(l.d.Profile.DefaultAction))
}

// closes reports whether a rule denies calls that the default permits.
func (l *linter) closes(r placed) bool {
	return permissiveness(normal(r.Action)) < permissiveness(normal(l.d.Profile.DefaultAction))
}

func (l *linter) equalsDefault(r placed) bool {
	p := l.d.Profile
	if normal(r.Action) != normal(p.DefaultAction) || hasErrno(r.Action) && errnoOf(r.ErrnoRet) != errnoOf(p.DefaultErrnoRet) {
		return false
	}
	level, fix := Note, "remove the rule"
	if slices.ContainsFunc(r.Names, reachesSocket) {
		level, fix = Warning, "if the call is to be denied, see that no other rule allows it more widely; then remove this one"
	}
	l.add(ruleDefault, level, r.path()+"/action", fix,
		"the rule for %s is skipped: its action is the default action", list(r.Names))
	return true
}

func hasErrno(a specs.LinuxSeccompAction) bool { return a == specs.ActErrno || a == specs.ActTrace }

// errnoOf returns the errno that the runtimes use.
func errnoOf(n *uint) uint {
	if n == nil {
		return uint(unix.EPERM)
	}
	return *n
}

// reachesSocket reports whether a call belongs to a route.
func reachesSocket(call string) bool {
	return familyArgument(call) || call == "socketcall" || strings.HasPrefix(call, "io_uring_")
}

func list(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (l *linter) unknownCalls(r placed) {
	unknown := slices.DeleteFunc(slices.Clone(r.Names), seccomp.Known)
	if len(unknown) == 0 {
		return
	}
	level := Note
	if l.closes(r) {
		level = Warning
	}
	first := slices.Index(r.Names, unknown[0])
	l.add(ruleUnknownCall, level, fmt.Sprintf("%s/names/%d", r.path(), first),
		"correct the name, or see that the hosts have a libseccomp that knows it",
		"libseccomp %s does not know %s: the runtimes skip it, and the default action holds", seccomp.Version(), list(unknown))
}

// idle reports rules that do nothing.
func (l *linter) idle() {
	for _, i := range l.d.Profile.Idle() {
		l.add(ruleIdle, Note, fmt.Sprintf("/syscalls/%d/names", i), "remove the rule, or name the calls that it is for",
			"the rule names no system call: it does nothing")
	}
}

// keys reports the keys that the runtimes ignore.
func (l *linter) keys() {
	l.d.text.Keys(l.d.profileType(), func(k jsontext.Key) {
		if k.Known() {
			return
		}
		rule, level, fix, where := ruleUnknownKey, Warning, "correct the key, or remove it", "here"
		if l.d.Kind == KindConfig && slices.Contains(dockerKeys, k.Name) {
			rule, level, fix, where = ruleKeyOfAnother, Error, "resolve the profile for the machine: afalg-policy generate oci", "in a config.json"
		}
		if profile.IsRemark(k.Name) {
			level = Note
		}
		line, column := l.d.text.Position(k.Offset)
		l.found = append(l.found, Finding{rule, level, line, column,
			fmt.Sprintf("the runtimes know no key %q %s, and ignore it", k.Name, where), fix})
	})
}
