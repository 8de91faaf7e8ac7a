package gen

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// No service is weaker for our drop-in, by systemd's own measure: those that
// this machine's packages bring, and one with a list as short as can be.
func TestSystemdNoWeaker(t *testing.T) {
	units := machineUnits(t)
	units["none.service"] = "[Service]\nExecStart=/bin/true\nRestrictAddressFamilies=none\nSystemCallFilter=@basic-io\n"
	var facts []string
	before, after := t.TempDir(), t.TempDir()
	for name, text := range units {
		own, err := unit.OwnFamilies("Service", []string{name}, func(string) ([]byte, error) { return []byte(text), nil })
		if err != nil {
			t.Fatal(err)
		}
		facts = append(facts, "Id="+name+"\nRestrictAddressFamilies="+own.String())
		writeTree(t, before, []File{{name, []byte(text)}})
		writeTree(t, after, []File{{name, []byte(text)}})
	}
	files, _, err := Systemd(&plan.Plan{}, SystemdOptions{Show: []byte(strings.Join(facts, "\n\n"))})
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, after, files)
	stronger, listed := 0, 0
	for name, text := range units {
		was, is := exposure(t, before, name), exposure(t, after, name)
		switch {
		case is > was:
			t.Errorf("%s: exposure %.1f before, %.1f with the drop-in", name, was, is)
		case is < was:
			stronger++
		}
		if strings.Contains(text, "\nRestrictAddressFamilies=") {
			listed++
		}
	}
	if stronger == 0 || listed < 2 {
		t.Errorf("of %d services %d are stronger, and %d have a list of their own: the test says little", len(units), stronger, listed)
	}
	t.Logf("%d services, %d with a list of their own, %d stronger, none weaker", len(units), listed, stronger)
}

// The list for every service in place of a unit's own does weaken it: the test
// above can fail.
func TestSystemdWeakens(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, []File{{"a.service", []byte("[Service]\nExecStart=/bin/true\nRestrictAddressFamilies=AF_UNIX\n")}})
	was := exposure(t, dir, "a.service")
	files, _, err := Systemd(&plan.Plan{}, SystemdOptions{Show: []byte("Id=b.service\nRestrictAddressFamilies=~\n")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range files { // without what is stronger for it
		files[i].Data = regexp.MustCompile(`(?m)^SystemCall.*$`).ReplaceAll(files[i].Data, nil)
	}
	writeTree(t, dir, files)
	if is := exposure(t, dir, "a.service"); is <= was {
		t.Errorf("exposure %.1f before, %.1f after", was, is)
	}
}

// machineUnits are the services of this machine's packages.
func machineUnits(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("/lib/systemd/system/*.service")
	if err != nil {
		t.Fatal(err)
	}
	units := map[string]string{}
	for _, p := range paths {
		name := filepath.Base(p)
		info, err := os.Lstat(p)
		if err != nil || !info.Mode().IsRegular() || strings.Contains(name, "@") {
			continue // a link to another, or a template, which cannot be asked about
		}
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		units[name] = string(text)
	}
	return units
}

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func exposure(t *testing.T, dir, name string) float64 {
	t.Helper()
	stdout, _ := systemdAnalyze(t, dir, "security", "--offline=true", "--threshold=100", "--no-pager", "./"+name)
	m := overall.FindStringSubmatch(stdout)
	if m == nil {
		t.Fatalf("%s: no exposure in\n%s", name, stdout)
	}
	level, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}
