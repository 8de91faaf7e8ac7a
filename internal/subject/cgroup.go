package subject

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// unit fills in the systemd unit.
func (r *Reader) unit(s *Subject, t *task) {
	if !r.units.Load() {
		return
	}
	if r.self.cgroups != initialCgroup {
		s.unknown(Unit, "the reader is in a cgroup namespace of its own")
		return
	}
	unit, err := t.readUnit()
	if err != nil {
		s.unknown(Unit, "%v", err)
		return
	}
	s.Unit = unit
}

func (t *task) readUnit() (string, error) {
	if t.cgroup < 0 {
		fd, err := openAt(t.dir, "cgroup", unix.O_RDONLY)
		if err != nil {
			return "", fmt.Errorf("open cgroup: %w", err)
		}
		t.cgroup = fd
	}
	text, err := t.read(t.cgroup)
	if err != nil {
		return "", fmt.Errorf("read cgroup: %w", err)
	}
	if t.cgroupText == nil || !bytes.Equal(text, t.cgroupText) {
		t.cgroupText = bytes.Clone(text)
		t.unit, t.unitErr = parseCgroup(string(text))
	}
	return t.unit, t.unitErr
}

// UnitOf reads the systemd unit out of the text of /proc/PID/cgroup.
func UnitOf(cgroups string) (string, error) { return parseCgroup(cgroups) }

// parseCgroup reads the unit out of /proc/TID/cgroup. Systemd maintains the
// unified hierarchy, the one called systemd, or both alike. In a hierarchy that
// nobody uses, a task is at "/".
func parseCgroup(text string) (string, error) {
	unified, named, err := systemdPaths(text)
	switch {
	case err != nil:
		return "", err
	case unified == "" && named == "":
		return "", errors.New("in no cgroup hierarchy of systemd")
	case named == "" || named == "/" && unified != "":
		return unitOf(unified)
	case unified == "" || unified == "/":
		return unitOf(named)
	}
	unit, err := unitOf(unified)
	if err != nil {
		return "", err
	}
	other, err := unitOf(named)
	if err != nil {
		return "", err
	}
	if unit != other {
		return "", fmt.Errorf("cgroups disagree: %s in the unified hierarchy, %s in the one called systemd", unit, other)
	}
	return unit, nil
}

// systemdPaths returns the paths of the lines "0::PATH" and
// "N:name=systemd:PATH", each "" if there is none. A path contains no newline:
// the kernel refuses such a name.
func systemdPaths(text string) (unified, named string, err error) {
	if !strings.HasSuffix(text, "\n") {
		return "", "", fmt.Errorf("cgroup list %q is cut off", text)
	}
	for line := range strings.Lines(text) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("cgroup %q: no ID:CONTROLLERS:PATH", line)
		}
		switch {
		case id == "0" && controllers == "":
			unified = path
		case controllers == "name=systemd":
			named = path
		}
	}
	return unified, named, nil
}

// unitOf works as systemd's cg_path_get_unit: the first component that is no
// slice is the unit. The unit itself made the components below.
func unitOf(path string) (string, error) {
	for component := range strings.SplitSeq(path, "/") {
		name := strings.TrimPrefix(component, "_") // escaped where a kernel file could have the name
		switch {
		case component == "":
		case component == "..": // outside the reader's cgroup namespace
			return "", fmt.Errorf("cgroup %q is outside the visible hierarchy", path)
		case strings.HasSuffix(name, ".slice") && !strings.Contains(name, "@") && validUnit(name):
		case strings.HasSuffix(name, ".slice") || !validUnit(name):
			return "", fmt.Errorf("no unit in cgroup %q", path)
		default:
			return name, nil
		}
	}
	return "", fmt.Errorf("no unit in cgroup %q", path)
}

var unitTypes = []string{"service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"}

const (
	maxUnit   = 255
	unitChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
)

// validUnit works as systemd's unit_name_is_valid, for names of one unit:
// "a.service" and "a@b.service", not the template "a@.service".
func validUnit(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || len(name) > maxUnit || !slices.Contains(unitTypes, name[dot+1:]) {
		return false
	}
	prefix := name[:dot]
	at := strings.IndexByte(prefix, '@')
	return strings.Trim(prefix, unitChars) == "" && at != 0 && at != len(prefix)-1
}
