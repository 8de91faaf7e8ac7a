package unit

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

// TemplateInstance stands for the template itself in the output of systemctl
// show, which cannot show a template.
const TemplateInstance = "afalg-policy"

// Shown holds what a manager shows of a unit.
type Shown struct {
	// Families are the families that the unit itself allows.
	Families Families
	// Values are all properties that were shown, by name.
	Values map[string]string
}

// Hiding lists the drop-ins that hide the one for every service: they have its
// name, and are nearer to the unit.
func (s Shown) Hiding() []string {
	return slices.DeleteFunc(strings.Fields(s.Values["DropInPaths"]), func(p string) bool {
		return path.Base(p) != Closure || path.Base(path.Dir(p)) == EveryService+".d"
	})
}

// Facts are the units that a manager shows, by name; a template has its own.
type Facts map[string]Shown

// Of returns what is shown of a unit, itself or as its template, and whether
// anything is. A unit that is not shown counts as one without settings.
func (f Facts) Of(unit string) (Shown, bool) {
	for _, name := range []string{unit, Template(unit)} {
		if s, ok := f[name]; ok {
			return s, true
		}
	}
	return Shown{Families: Unrestricted()}, false
}

// Matches lists the shown units that a name means: the unit, its template, or
// the instances of a template.
func (f Facts) Matches(name string) []string {
	var units []string
	for unit := range f {
		if unit == name || unit == Template(name) || Template(unit) == name {
			units = append(units, unit)
		}
	}
	return units
}

const wantShow = "the file must hold the output of systemctl show --property=Id,RestrictAddressFamilies"

// Parse reads the output of systemctl show: blocks of KEY=VALUE between empty
// lines. It skips units of a type that starts nothing, and units that are only
// referred to.
func Parse(show []byte) (Facts, error) {
	facts := Facts{}
	for i, block := range strings.Split(strings.TrimSpace(string(show)), "\n\n") {
		unit, s, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", i+1, err)
		}
		if unit == "" || s.Values["LoadState"] == "not-found" {
			continue
		}
		// A unit appears again for each of its aliases.
		if first, again := facts[unit]; again && !reflect.DeepEqual(first.Families, s.Families) {
			return nil, fmt.Errorf("block %d: %s for the second time, with another list", i+1, unit)
		}
		facts[unit] = s
	}
	return facts, nil
}

// parseBlock reads one block; the unit is "" if it starts nothing.
func parseBlock(block string) (unit string, s Shown, err error) {
	s.Values = map[string]string{}
	for line := range strings.SplitSeq(block, "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return "", s, fmt.Errorf("%q is no KEY=VALUE line; %s", line, wantShow)
		}
		if _, twice := s.Values[key]; twice {
			return "", s, fmt.Errorf("%s for the second time", key)
		}
		s.Values[key] = value
	}
	id, ok := s.Values["Id"]
	if !ok {
		return "", s, fmt.Errorf("no Id; %s", wantShow)
	}
	if dot := strings.LastIndexByte(id, '.'); dot > 0 && sections[id[dot:]] == "" {
		return "", s, nil
	}
	if _, err := Section(id); err != nil {
		return "", s, fmt.Errorf("unit %w", err)
	}
	shown, ok := s.Values["RestrictAddressFamilies"]
	if !ok {
		return "", s, fmt.Errorf("%s: no RestrictAddressFamilies; %s", id, wantShow)
	}
	if s.Families, err = parseFamilies(shown); err != nil {
		return "", s, fmt.Errorf("%s: %w", id, err)
	}
	return strings.Replace(id, "@"+TemplateInstance+".", "@.", 1), s, nil
}
