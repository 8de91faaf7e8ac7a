package gen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
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
	// Show tells what the units set themselves: the output of systemctl show
	// for the properties Id and RestrictAddressFamilies. Nil means unknown.
	Show []byte
}

// dropInName is the file name of every drop-in. systemd sorts drop-ins by this
// name, whatever directory they are in, and the last word counts: an
// assignment behind ours could reset the list.
const dropInName = "zz-afalg-policy.conf"

// everyService is the unit whose drop-ins apply to each service that has none
// of the same file name.
const everyService = "service"

// GapOwnLists is the name of the gap that the facts in Show close.
const GapOwnLists = "own-lists"

// Systemd renders drop-ins, laid out as below /etc/systemd/system.
func Systemd(p *plan.Plan, o SystemdOptions) ([]File, []Gap, error) {
	s := systemd{SystemdOptions: o, plan: p}
	if err := s.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := s.gaps()
	if err := s.settle(gaps); err != nil {
		return nil, gaps, err
	}
	var files []File
	for _, unit := range s.targets() {
		files = append(files, File{Path: unit + ".d/" + dropInName, Data: s.dropIn(unit, gaps)})
	}
	return files, gaps, nil
}

type systemd struct {
	SystemdOptions
	plan  *plan.Plan
	abi   afalg.ABI
	own   map[string]familyList // what units set themselves, by unit
	holds map[string][]string   // rules that units hold, by unit
}

func (s *systemd) resolve() (err error) {
	if s.abi, err = systemdABI(s.Arch); err != nil {
		return err
	}
	if err := s.checkUnits(); err != nil {
		return err
	}
	if s.own, err = parseShow(s.Show); err != nil {
		return fmt.Errorf("--show: %w", err)
	}
	for _, unit := range s.Units {
		if _, known := s.ownList(unit); s.Show != nil && !known {
			return fmt.Errorf("--unit %s: not in the output of systemctl show; name the unit by its Id", unit)
		}
	}
	s.holds, err = s.grants()
	return err
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
	for _, unit := range s.Units {
		if _, err := unitSection(unit); err != nil {
			return fmt.Errorf("--unit %w", err)
		}
	}
	for _, unit := range s.Except {
		section, err := unitSection(unit)
		switch {
		case err != nil:
			return fmt.Errorf("--except %w", err)
		case section != "Service":
			return fmt.Errorf("--except %s: only services are restricted where no --unit is named", unit)
		case len(s.Units) > 0:
			return fmt.Errorf("--except %s: only without --unit", unit)
		}
	}
	return nil
}

// grants finds which units hold which of the granted rules. A rule goes to
// the units that it names; one that names none, to every named unit.
func (s *systemd) grants() (map[string][]string, error) {
	rules, err := s.granted(s.plan)
	if err != nil {
		return nil, err
	}
	holds := map[string][]string{}
	for _, rule := range rules {
		units, err := s.holders(rule.Name, rule.Units)
		if err != nil {
			return nil, fmt.Errorf("--grant %s: %w", rule.Name, err)
		}
		for _, unit := range units {
			holds[unit] = append(holds[unit], rule.Name)
		}
	}
	return holds, nil
}

func (s *systemd) holders(rule string, named []string) ([]string, error) {
	if len(named) == 0 {
		if len(s.Units) == 0 {
			return nil, fmt.Errorf("the rule names no unit; say which with --unit")
		}
		return s.Units, nil
	}
	var units []string
	for _, unit := range named {
		if _, err := unitSection(unit); err != nil {
			return nil, fmt.Errorf("its unit %w", err)
		}
		if s.excepted(unit) {
			return nil, fmt.Errorf("its unit %s is also left out by --except", unit)
		}
		if len(s.Units) == 0 || slices.Contains(s.Units, unit) {
			units = append(units, unit)
		}
	}
	if len(units) == 0 {
		return nil, fmt.Errorf("the rule is for %s, and no --unit names one of these", strings.Join(named, ", "))
	}
	return units, nil
}

// held returns the rules that a unit holds, itself or by its template.
func (s *systemd) held(unit string) []string {
	if rules, ok := s.holds[unit]; ok {
		return rules
	}
	return s.holds[templateOf(unit)]
}

// ownList returns what a unit sets itself, and whether that is known; where it
// is not, the unit is taken to set nothing.
func (s *systemd) ownList(unit string) (familyList, bool) {
	for _, name := range []string{unit, templateOf(unit)} {
		if list, ok := s.own[name]; ok {
			return list, true
		}
	}
	return familyList{inverted: true}, false
}

func (s *systemd) excepted(unit string) bool {
	return slices.Contains(s.Except, unit) || slices.Contains(s.Except, templateOf(unit))
}

// targets lists what gets a drop-in, sorted. A unit's own drop-in replaces
// that of every service.
func (s *systemd) targets() []string {
	units := map[string]bool{}
	add := func(names ...string) {
		for _, unit := range names {
			units[unit] = true
		}
	}
	add(s.Units...)
	for unit := range s.holds {
		add(unit)
	}
	if len(s.Units) == 0 {
		add(everyService)
		add(s.Except...)
		for unit, list := range s.own {
			if !list.unset() {
				add(unit)
			}
		}
	}
	return sortedKeys(units)
}

func (s *systemd) dropIn(unit string, gaps []Gap) []byte {
	var b strings.Builder
	b.WriteString(s.header(s.plan, s.notes(unit), gaps))
	if s.excepted(unit) {
		return []byte(b.String())
	}
	section := "Service"
	if unit != everyService {
		// The name was checked when it came in.
		section, _ = unitSection(unit)
	}
	fmt.Fprintf(&b, "\n[%s]\n", section)
	s.writeFamilies(&b, unit)
	b.WriteString(nativeOnly)
	b.WriteString(noIOUring)
	return []byte(b.String())
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

// writeFamilies lists what stays allowed. A list of what is denied would not
// do: systemd compares 64 bits, and the kernel takes an int.
func (s *systemd) writeFamilies(b *strings.Builder, unit string) {
	b.WriteString(reset)
	families := s.families(unit)
	if len(families) == 0 {
		families = []string{"none"}
	}
	for _, line := range wrap(strings.Join(families, " "), commentWidth-len(reset)) {
		fmt.Fprintf(b, "RestrictAddressFamilies=%s\n", line)
	}
}

// families are those that the unit keeps: what it allows itself, without what
// the policy closes.
func (s *systemd) families(unit string) []string {
	closed := s.closed()
	own, _ := s.ownList(unit)
	families := slices.DeleteFunc(own.allowed(), func(name string) bool { return slices.Contains(closed, name) })
	if len(s.held(unit)) > 0 {
		families = append(families, familyALG)
	}
	return families
}

const familyALG = "AF_ALG"

func (s *systemd) closed() []string {
	closed := []string{familyALG}
	for _, f := range s.plan.Families {
		closed = append(closed, afalg.FamilyName(f.Number))
	}
	return closed
}

func (s *systemd) notes(unit string) []string {
	if s.excepted(unit) {
		return []string{fmt.Sprintf("Leaves %s as it is. An empty file is what keeps the drop-in for every service from it.", unit)}
	}
	notes := []string{fmt.Sprintf("For systemd 252 or later on %s. Not covered: sockets that a unit inherits, command lines that start with +, and processes that no unit of these starts.", s.abi.Name)}
	if rules := s.held(unit); len(rules) > 0 {
		notes = append(notes, fmt.Sprintf("%s holds %s, so AF_ALG is open to it.", unit, strings.Join(rules, ", ")))
	}
	if own, known := s.ownList(unit); known && !own.unset() {
		notes = append(notes, fmt.Sprintf("%s has a list of its own, which this file narrows. Generate it again when that list changes.", unit))
	}
	return notes
}
