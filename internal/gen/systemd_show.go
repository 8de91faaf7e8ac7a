package gen

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// unitSections are the unit types that start processes of their own, by
// suffix, and the section that takes their settings.
var unitSections = map[string]string{
	".service": "Service",
	".socket":  "Socket",
	".mount":   "Mount",
	".swap":    "Swap",
}

// maxUnitName leaves room for ".d" in a directory's name, which has 255 bytes.
const maxUnitName = 253

// unitSection checks a unit's name by systemd's grammar and returns the section
// for its settings. The name is then safe as a directory.
func unitSection(unit string) (string, error) {
	dot := strings.LastIndexByte(unit, '.')
	if dot <= 0 {
		return "", fmt.Errorf("%q: a unit's name ends in its type, as in iwd.service", unit)
	}
	section, ok := unitSections[unit[dot:]]
	switch {
	case !ok:
		return "", fmt.Errorf("%q: only %s take these settings", unit, strings.Join(sortedKeys(unitSections), ", "))
	case len(unit) > maxUnitName:
		return "", fmt.Errorf("%q: longer than %d bytes", unit, maxUnitName)
	case unit[0] == '@':
		return "", fmt.Errorf("%q: no name before @", unit)
	}
	if i := strings.IndexFunc(unit, notInUnitName); i >= 0 {
		return "", fmt.Errorf("%q: %q cannot stand in a unit's name", unit, []rune(unit[i:])[0])
	}
	return section, nil
}

func notInUnitName(r rune) bool {
	switch {
	case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		return false
	default:
		return !strings.ContainsRune(`:-_.\@`, r)
	}
}

// templateOf returns the template that a unit is an instance of, or "".
func templateOf(unit string) string {
	name, rest, ok := strings.Cut(unit, "@")
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot <= 0 {
		return ""
	}
	return name + "@" + rest[dot:]
}

// templateInstance stands for the template itself in the output of systemctl
// show, which cannot show a template.
const templateInstance = "afalg-policy"

// familyList is a RestrictAddressFamilies setting as systemctl shows it: what
// is allowed, or behind ~ what is denied. The zero list denies everything.
type familyList struct {
	inverted bool
	names    []string
}

// unset tells whether the unit restricts nothing.
func (l familyList) unset() bool { return l.inverted && len(l.names) == 0 }

// allowed spells the list out as what is allowed.
func (l familyList) allowed() []string {
	if !l.inverted {
		return slices.Clone(l.names)
	}
	return slices.DeleteFunc(systemdFamilies(), func(name string) bool { return slices.Contains(l.names, name) })
}

// lastSystemdFamily is the last that systemd 252 knows: AF_MCTP.
const lastSystemdFamily = 45

// systemdFamilies lists every family that systemd 252 knows; AF_UNSPEC is none.
func systemdFamilies() []string {
	var names []string
	for n := uint32(1); n <= lastSystemdFamily; n++ {
		names = append(names, afalg.FamilyName(n))
	}
	return names
}

const wantShow = "the file must hold the output of systemctl show --property=Id,RestrictAddressFamilies"

// parseShow reads the output of systemctl show: blocks of KEY=VALUE between
// empty lines. Units of a type that starts nothing are skipped.
func parseShow(show []byte) (map[string]familyList, error) {
	own := map[string]familyList{}
	if show == nil {
		return own, nil
	}
	for i, block := range strings.Split(strings.TrimSpace(string(show)), "\n\n") {
		unit, list, err := parseShown(block)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", i+1, err)
		}
		if unit == "" {
			continue
		}
		// A unit is shown again for each of its aliases.
		if first, again := own[unit]; again && !reflect.DeepEqual(first, list) {
			return nil, fmt.Errorf("block %d: %s for the second time, with another list", i+1, unit)
		}
		own[unit] = list
	}
	return own, nil
}

// parseShown reads one block; the unit is "" if it starts nothing.
func parseShown(block string) (unit string, list familyList, err error) {
	values := map[string]string{}
	for line := range strings.SplitSeq(block, "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return "", list, fmt.Errorf("%q is no KEY=VALUE line; %s", line, wantShow)
		}
		if _, twice := values[key]; twice {
			return "", list, fmt.Errorf("%s for the second time", key)
		}
		values[key] = value
	}
	id, ok := values["Id"]
	if !ok {
		return "", list, fmt.Errorf("no Id; %s", wantShow)
	}
	if dot := strings.LastIndexByte(id, '.'); dot > 0 && unitSections[id[dot:]] == "" {
		return "", list, nil
	}
	if _, err := unitSection(id); err != nil {
		return "", list, fmt.Errorf("unit %w", err)
	}
	shown, ok := values["RestrictAddressFamilies"]
	if !ok {
		return "", list, fmt.Errorf("%s: no RestrictAddressFamilies; %s", id, wantShow)
	}
	if list, err = parseFamilyList(shown); err != nil {
		return "", list, fmt.Errorf("%s: %w", id, err)
	}
	return strings.Replace(id, "@"+templateInstance+".", "@.", 1), list, nil
}

func parseFamilyList(shown string) (familyList, error) {
	names, inverted := strings.CutPrefix(shown, "~")
	list := familyList{inverted: inverted}
	for name := range strings.FieldsSeq(names) {
		if !isFamilyName(name) {
			return list, fmt.Errorf("RestrictAddressFamilies: %q is no address family", name)
		}
		if n, known := afalg.FamilyByName(name); known {
			name = afalg.FamilyName(n)
		}
		list.names = append(list.names, name)
	}
	return list, nil
}

// isFamilyName admits names that this version does not know: a later systemd
// shows them.
func isFamilyName(name string) bool {
	rest, ok := strings.CutPrefix(name, "AF_")
	return ok && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_')
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
