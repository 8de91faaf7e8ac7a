package gen

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// SystemdOptions are those of the systemd target.
type SystemdOptions struct {
	Common
	// Arch is the machine that the units run on; x86-64 if it is empty.
	Arch specs.Arch
	// Units are those to restrict; none means every service.
	Units []string
	// Except are services to leave as they are, where every other service is
	// restricted. Each is a wider gap of the unit's name.
	Except []string
	// Gone are drop-ins that stand at their place now, and will not.
	Gone []string
	// Show is what the units set themselves: the output of systemctl show
	// for the properties Id and RestrictAddressFamilies. Without it a unit with a
	// shorter list could get a longer one from us, so it must be there.
	Show []byte
}

// Systemd renders drop-ins, laid out as below /etc/systemd/system.
func Systemd(p *plan.Plan, o SystemdOptions) ([]File, []plan.Gap, error) {
	s := systemd{SystemdOptions: o, plan: p}
	if err := s.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := s.gaps()
	if err := s.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	var files []File
	for _, name := range s.targets() {
		files = append(files, File{Path: unit.DropIn(name, unit.Closure), Data: s.dropIn(name, gaps)})
	}
	return files, gaps, nil
}

type systemd struct {
	SystemdOptions
	plan    *plan.Plan
	abi     afalg.ABI
	facts   unit.Facts
	holds   map[string][]string // rules that units hold, by unit
	unasked []string            // rules that a unit of the initramfs holds without --grant
}

func (s *systemd) resolve() (err error) {
	if s.abi, err = systemdABI(s.Arch); err != nil {
		return err
	}
	if err := s.checkUnits(); err != nil {
		return err
	}
	if s.Show == nil {
		return errors.New("what the units restrict themselves is not known, and a longer list must not replace theirs; give --show")
	}
	if s.facts, err = unit.Parse(s.Show); err != nil {
		return fmt.Errorf("--show: %w", err)
	}
	if err := s.checkMatches(); err != nil {
		return err
	}
	if s.holds, err = s.grants(); err != nil {
		return err
	}
	s.grantInitramfs()
	return nil
}

func systemdABI(arch specs.Arch) (afalg.ABI, error) {
	if arch == "" {
		arch = specs.ArchX86_64
	}
	abi, ok := afalg.ABIOf(string(arch))
	if !ok || abi.Kind != afalg.Native {
		return afalg.ABI{}, fmt.Errorf("no machine has %q as its native architecture", arch)
	}
	return abi, nil
}

func (s *systemd) checkUnits() error {
	for _, name := range s.Units {
		if _, err := unit.Section(name); err != nil {
			return fmt.Errorf("--unit %w", err)
		}
		if why, own := ownServices[name]; own {
			return fmt.Errorf("--unit %s: %s; leave it open", name, why)
		}
	}
	for _, name := range s.Except {
		section, err := unit.Section(name)
		switch {
		case err != nil:
			return fmt.Errorf("--except %w", err)
		case section != "Service":
			return fmt.Errorf("--except %s: only services are restricted where no --unit is named", name)
		case len(s.Units) > 0:
			return fmt.Errorf("--except %s: only without --unit", name)
		}
	}
	return nil
}

// checkMatches refuses names that no unit has: a misspelt one would close, or
// leave open, another unit than the user thinks.
func (s *systemd) checkMatches() error {
	for _, name := range s.Units {
		if _, known := s.facts.Of(name); !known {
			return fmt.Errorf("--unit %s: there is no such unit; name it by its Id, as systemctl show does", name)
		}
	}
	for _, name := range s.Except {
		if ownServices[name] == "" && len(s.facts.Matches(name)) == 0 {
			return fmt.Errorf("--except %s: there is no such unit; name it by its Id, as systemctl show does", name)
		}
	}
	return nil
}

// grants finds which units hold which of the granted rules. A rule goes to
// the units that it names; one that names none, to every named unit.
func (s *systemd) grants() (map[string][]string, error) {
	rules, err := s.plan.RulesNamed(s.Grants)
	if err != nil {
		return nil, err
	}
	holds := map[string][]string{}
	for _, rule := range rules {
		units, err := s.holders(rule.Name, rule.Units)
		if err != nil {
			return nil, fmt.Errorf("--grant %s: %w", rule.Name, err)
		}
		for _, name := range units {
			holds[name] = append(holds[name], rule.Name)
		}
	}
	return holds, nil
}

// initramfsUnits run in the initramfs alone, before there is a host to protect,
// and stop the boot if AF_ALG is closed to them. The first that a dracut
// has of them checks the kernel image with fips=1.
var initramfsUnits = []string{"dracut-pre-mount.service", "dracut-pre-pivot.service", "dracut-pre-trigger.service"}

// grantInitramfs gives a unit of the initramfs the rules that are for nobody
// else, and takes that on, unasked: nobody is there to see why a boot stops.
func (s *systemd) grantInitramfs() {
	if len(s.Units) > 0 {
		return
	}
	elsewhere := func(name string) bool { return !slices.Contains(initramfsUnits, name) || s.excepted(name) }
	for _, rule := range s.plan.Rules {
		if !rule.OpensAlgorithms() || len(rule.Units) == 0 || slices.ContainsFunc(rule.Units, elsewhere) || slices.Contains(s.Grants, rule.Name) {
			continue
		}
		for _, name := range rule.Units {
			s.holds[name] = append(s.holds[name], rule.Name)
		}
		s.unasked = append(s.unasked, rule.Name)
		s.Accept = append(slices.Clone(s.Accept), rule.Name)
	}
}

func (s *systemd) holders(rule string, named []string) ([]string, error) {
	if len(named) == 0 {
		if len(s.Units) == 0 {
			return nil, fmt.Errorf("the rule names no unit; say which with --unit")
		}
		return s.Units, nil
	}
	var units []string
	for _, name := range named {
		if _, err := unit.Section(name); err != nil {
			return nil, fmt.Errorf("its unit %w", err)
		}
		if s.excepted(name) {
			return nil, fmt.Errorf("its unit %s is also left out by --except", name)
		}
		if len(s.Units) == 0 || slices.Contains(s.Units, name) {
			units = append(units, name)
		}
	}
	if len(units) == 0 {
		return nil, fmt.Errorf("the rule is for %s, and no --unit names one of these", strings.Join(named, ", "))
	}
	return units, nil
}

// held returns the rules that a unit holds, itself or by its template.
func (s *systemd) held(name string) []string {
	if rules, ok := s.holds[name]; ok {
		return rules
	}
	return s.holds[unit.Template(name)]
}

// own returns what a unit sets itself. A list that is the one for every service
// is none: it is from a drop-in of an earlier time.
func (s *systemd) own(name string) unit.Families {
	shown, _ := s.facts.Of(name)
	if families := slices.Sorted(slices.Values(shown.Families.Allowed())); slices.Equal(families, s.everyFamily()) {
		return unit.Unrestricted()
	}
	return shown.Families
}

// everyFamily is the list for every service, sorted.
func (s *systemd) everyFamily() []string {
	open := slices.DeleteFunc(unit.KnownFamilies(), func(f string) bool { return slices.Contains(s.closed(), f) })
	return slices.Sorted(slices.Values(open))
}

func (s *systemd) excepted(name string) bool {
	return slices.Contains(s.Except, name) || slices.Contains(s.Except, unit.Template(name))
}

// ownServices are left as they are, with the reason.
var ownServices = map[string]string{
	unit.AgentService: "the agent uses AF_ALG for all who are granted it, and has a list of its own",
	unit.LSMService:   probesKernel,
	unit.LSMRefresh:   probesKernel,
}

const probesKernel = "it asks the kernel for a socket of AF_ALG, to see that its programs decide"

// untouched reports whether a unit is left as it is.
func (s *systemd) untouched(name string) bool { return ownServices[name] != "" || s.excepted(name) }

// targets lists what gets a drop-in, sorted. A unit's own drop-in replaces
// that of every service.
func (s *systemd) targets() []string {
	units := map[string]bool{}
	add := func(names ...string) {
		for _, name := range names {
			units[name] = true
		}
	}
	add(s.Units...)
	for name := range s.holds {
		add(name)
	}
	if len(s.Units) == 0 {
		add(unit.EveryService)
		add(sortedKeys(ownServices)...)
		add(s.Except...)
		for name := range s.facts {
			if strings.HasSuffix(name, ".service") && s.hasOwnDropIn(name) {
				add(name)
			}
		}
	}
	return sortedKeys(units)
}

// hasOwnDropIn reports whether the drop-in for every service would change what
// a unit has a list for. An instance has the drop-in of its template.
func (s *systemd) hasOwnDropIn(name string) bool {
	template := unit.Template(name)
	if shown, ok := s.facts[template]; ok && name != template && shown.Families.String() == s.facts[name].Families.String() {
		return false
	}
	return !s.own(name).Unset()
}

func (s *systemd) dropIn(name string, gaps []plan.Gap) []byte {
	var b strings.Builder
	b.WriteString(s.Header(s.plan, s.notes(name), s.recorded(name, gaps)))
	if s.untouched(name) {
		return []byte(b.String())
	}
	section := "Service"
	if name != unit.EveryService {
		// The name was checked when it came in.
		section, _ = unit.Section(name)
	}
	fmt.Fprintf(&b, "\n[%s]\n", section)
	s.writeFamilies(&b, name)
	if s.plan.UserNamespaces && !s.mayMakeUserNamespaces(name) {
		b.WriteString(noUserNamespaces)
	}
	b.WriteString(nativeOnly)
	b.WriteString(noIOUring)
	return []byte(b.String())
}

// recorded are the gaps that a file carries. Beside the file for every service,
// which has them all, others keep those that somebody took on.
func (s *systemd) recorded(name string, gaps []plan.Gap) []plan.Gap {
	if name == unit.EveryService || len(s.Units) > 0 {
		return gaps
	}
	return slices.DeleteFunc(slices.Clone(gaps), func(g plan.Gap) bool { return !g.Kind.MustAccept() })
}

// A list must be reset first: systemd merges it with what the unit says. Where
// the unit lists what it denies, our families would be taken off that list,
// and AF_ALG would be open.
const reset = "RestrictAddressFamilies=\n"

// RestrictAddressFamilies does not reach the 32-bit calls of most machines.
const nativeOnly = `SystemCallArchitectures=
SystemCallArchitectures=native
`

// The errno is what a kernel without io_uring answers. Behind an allow-list of
// the unit's own this form takes the calls off that list.
const noIOUring = `SystemCallFilter=~io_uring_setup:ENOSYS io_uring_enter:ENOSYS io_uring_register:ENOSYS
`

// The list needs no reset: whatever the unit says, this takes user namespaces off
// what it may make.
const noUserNamespaces = "RestrictNamespaces=~user\n"

// writeFamilies lists what stays allowed. A list of what is denied would not
// do: systemd compares 64 bits, and the kernel takes an int.
func (s *systemd) writeFamilies(b *strings.Builder, name string) {
	b.WriteString(reset)
	families := s.families(name)
	if len(families) == 0 {
		families = []string{"none"}
	}
	for _, line := range wrap(strings.Join(families, " "), commentWidth-len(reset)) {
		fmt.Fprintf(b, "RestrictAddressFamilies=%s\n", line)
	}
}

// families are those that the unit keeps: what it allows itself, without what
// the policy closes to it; and AF_ALG, if a rule allows it an algorithm.
func (s *systemd) families(name string) []string {
	reopened := s.reopened(name)
	families := slices.DeleteFunc(s.own(name).Allowed(), func(f string) bool {
		return slices.Contains(s.closed(), f) && !slices.Contains(reopened, f)
	})
	if s.opensALG(name) {
		families = append(families, familyALG)
	}
	return families
}

// reopened are the closed families that rules of a unit allow.
func (s *systemd) reopened(name string) (families []string) {
	for _, c := range s.granter().reopened(s.heldRules(name)...) {
		families = append(families, afalg.FamilyName(c.Family))
	}
	return families
}

// heldRules are the rules that a unit holds.
func (s *systemd) heldRules(name string) []policy.Rule {
	held := s.held(name)
	return slices.DeleteFunc(slices.Clone(s.plan.Rules), func(r policy.Rule) bool { return !slices.Contains(held, r.Name) })
}

// opensALG reports whether a rule that the unit holds allows it an algorithm.
func (s *systemd) opensALG(name string) bool {
	return slices.ContainsFunc(s.heldRules(name), policy.Rule.OpensAlgorithms)
}

func (s *systemd) mayMakeUserNamespaces(name string) bool {
	return plan.OpenedBy(s.heldRules(name)).UserNamespaces
}

// closed are the families that the policy closes.
func (s *systemd) closed() []string {
	closed := []string{familyALG}
	for _, f := range s.plan.Families {
		closed = append(closed, afalg.FamilyName(f.Number))
	}
	return closed
}

func (s *systemd) notes(name string) []string {
	switch {
	case ownServices[name] != "":
		return []string{fmt.Sprintf("Leaves %s as it is: %s. An empty file is what keeps the drop-in for every service from it.", name, ownServices[name])}
	case s.excepted(name):
		return []string{fmt.Sprintf("Leaves %s as it is. An empty file is what keeps the drop-in for every service from it.", name)}
	}
	notes := []string{fmt.Sprintf("For systemd 252 or later on %s. Not covered: sockets that a unit inherits, command lines that start with +, and processes that no unit of these starts.", s.abi.Name)}
	if opens := s.granter().opens(s.heldRules(name)...); opens != nil {
		notes = append(notes, fmt.Sprintf("%s holds %s, so it keeps %s.", name, strings.Join(s.held(name), ", "), strings.Join(opens, ", ")))
	}
	if !s.own(name).Unset() {
		notes = append(notes, fmt.Sprintf("%s has a list of its own, which this file narrows. Generate it again when that list changes.", name))
	}
	if name == unit.EveryService || len(s.Units) > 0 {
		notes = append(notes, breakNotes(s.plan)...)
	}
	return notes
}
