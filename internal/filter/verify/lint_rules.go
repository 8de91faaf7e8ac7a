package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// comparisons checks the conditions of one rule.
func (l *linter) comparisons(r placed) {
	if len(r.Args) > maxComparisons {
		l.add(ruleLong, Error, fmt.Sprintf("%s/args/%d", r.path(), maxComparisons), "write several rules",
			"%d comparisons in one rule: crun ignores those from here on", len(r.Args))
	}
	if first, second := repeated(r.Args); second > 0 {
		l.or(r, first, second)
	}
	for i, a := range r.Args {
		l.compares64(r, fmt.Sprintf("%s/args/%d", r.path(), i), a)
	}
}

func (l *linter) or(r placed, first, second int) {
	level := Warning
	if l.opens(r) {
		level = Error
	}
	l.add(ruleOr, level, fmt.Sprintf("%s/args/%d/index", r.path(), second), "write one rule for each value, or for each range that one comparison can express",
		"argument %d is compared twice (args[%d] and args[%d]): each comparison of this rule for %s becomes a rule of its own, so one that holds is enough",
		r.Args[second].Index, first, second, list(r.Names))
}

// compares64 reports comparisons whose result upper bits change for the worse:
// a rule that opens matches with them, or one that closes does not.
func (l *linter) compares64(r placed, path string, a specs.LinuxSeccompArg) {
	at := slices.IndexFunc(r.Names, func(name string) bool { return isNarrow(name, int(a.Index)) && l.hasUpperBits(name) })
	if at < 0 {
		return
	}
	opens := l.opens(r)
	if !opens && !l.closes(r) || !passes(a, opens) {
		return
	}
	p := signatures[r.Names[at]][a.Index]
	fix := "list what is allowed with SCMP_CMP_LT and SCMP_CMP_EQ, which upper bits do not meet"
	effect := "passes"
	if !opens {
		fix = "use SCMP_CMP_MASKED_EQ with value 4294967295 (the mask) and the number as valueTwo"
		effect = "is not denied"
	}
	l.add(ruleWide, Warning, path+"/op", fix, "%s of %s is an int, and %s compares 64 bits: the same value with upper bits set %s",
		p.name, r.Names[at], a.Op, effect)
}

// hasUpperBits reports whether the filter admits an ABI with 64-bit registers
// that has a call. i386, for example, has no upper bits, and socketcall is its
// own.
func (l *linter) hasUpperBits(call string) bool {
	return slices.ContainsFunc(Admitted(l.build.Program), func(abi afalg.ABI) bool {
		_, err := seccomp.Number(call, specs.Arch(abi.Arch))
		return err == nil && abi.Audit&afalg.Audit64Bit != 0
	})
}

func passes(a specs.LinuxSeccompArg, opens bool) bool {
	switch a.Op {
	case specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
		return opens
	case specs.OpEqualTo, specs.OpLessThan, specs.OpLessEqual:
		return !opens
	case specs.OpMaskedEqual:
		return !opens && a.Value>>32 != 0
	}
	return false
}

// architectures reports entries that no machine uses, and ABIs of the machine
// that are not listed.
func (l *linter) architectures() {
	l.listed()
	l.archMap()
	var missing []string
	for _, abi := range afalg.Machine(string(l.build.Host.Arch)) {
		if abi.Kind == afalg.Compat && !slices.Contains(l.build.Program.Arches, specs.Arch(abi.Arch)) {
			missing = append(missing, abi.Name)
		}
	}
	if missing != nil {
		l.add(ruleMissingABI, Note, l.archPath(), "list the architecture if its programs are to run",
			"%s is not listed for %s: its calls are killed, whatever the rules say", strings.Join(missing, " and "), afalg.Machine(string(l.build.Host.Arch))[0].Name)
	}
}

// archPath is the place of the machine's ABIs.
func (l *linter) archPath() string {
	for i, m := range l.d.Profile.ArchMap {
		if m.Arch == l.build.Host.Arch {
			return fmt.Sprintf("/archMap/%d", i)
		}
	}
	if len(l.d.Profile.ArchMap) > 0 {
		return "/archMap"
	}
	return "/architectures"
}

// listed reports an ABI whose machine is not listed with it.
func (l *linter) listed() {
	all := l.d.Profile.Architectures
	for i, a := range all {
		machine, ok := machineOf(string(a))
		if ok && slices.Contains(all, specs.Arch(machine.Arch)) || shares(machine, l.build.Host.Arch) {
			continue
		}
		l.add(ruleArchIgnored, Warning, fmt.Sprintf("/architectures/%d", i), "remove it, or list the machine that it belongs to",
			"no machine of this profile runs %s", a)
	}
}

func shares(machine afalg.ABI, arch specs.Arch) bool {
	native, ok := machineOf(string(arch))
	return ok && native == machine
}

func (l *linter) archMap() {
	seen := map[specs.Arch]int{}
	for i, m := range l.d.Profile.ArchMap {
		path := fmt.Sprintf("/archMap/%d", i)
		machine, known := machineOf(string(m.Arch))
		first, twice := seen[m.Arch]
		seen[m.Arch] = i
		switch {
		case !known:
			l.add(ruleArchIgnored, Warning, path+"/architecture", "correct the name, or remove the entry",
				"no runtime looks for %s: the entry is ignored", m.Arch)
			continue
		case twice:
			l.add(ruleArchIgnored, Warning, path+"/architecture", "join the two entries",
				"%s stands in archMap[%d] already, and the runtimes take that entry", m.Arch, first)
		}
		for j, sub := range m.SubArches {
			if !shares(machine, sub) {
				l.add(ruleArchIgnored, Warning, fmt.Sprintf("%s/subArchitectures/%d", path, j), "remove it",
					"no machine for %s runs %s", m.Arch, sub)
			}
		}
	}
}
