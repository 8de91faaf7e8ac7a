package doctor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// unitDirs have the units of the system, the most important first: of one name, the
// file in the first counts.
var unitDirs = []string{
	"etc/systemd/system.control", "run/systemd/system.control", "run/systemd/transient", "run/systemd/generator.early", "etc/systemd/system",
	"run/systemd/system", "run/systemd/generator", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "run/systemd/generator.late",
}

const (
	maxUnit   = 1 << 20 // bytes of a file
	mostUnits = 20_000
)

// unitFiles are the files of a unit: its own, and drop-ins, by their names.
type unitFiles struct {
	own     string
	dropIns map[string]string
}

// listing names the units whose own lists have AF_ALG. It reads files: to ask the
// manager would make it load every unit. Our drop-ins are no list of a unit's own.
func listing(root string) (names []string, err error) {
	all := findUnits(root)
	texts := map[string][]byte{}
	read := func(file string) []byte {
		if text, seen := texts[file]; seen {
			return text
		}
		text, readErr := readUnit(file)
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", file, readErr))
		}
		texts[file] = text
		return text
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		section, sectionErr := unit.Section(strings.Replace(name, "@.", "@x.", 1))
		if sectionErr != nil {
			continue // it starts nothing
		}
		if all[name].own == "" && unit.Template(name) == "" {
			continue // drop-ins of a unit that is not there
		}
		files := all.of(name)
		if !slices.ContainsFunc(files, func(file string) bool { return bytes.Contains(read(file), []byte("AF_ALG")) }) {
			continue
		}
		families, familiesErr := unit.OwnFamilies(section, files, func(file string) ([]byte, error) { return read(file), nil })
		if familiesErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, familiesErr))
		} else if families.Lists("AF_ALG") {
			names = append(names, name)
		}
	}
	return names, err
}

type units map[string]*unitFiles

// of lists the files in the order in which systemd reads them.
func (all units) of(name string) (files []string) {
	dropIns := map[string]string{}
	_, kind, _ := strings.Cut(name[strings.LastIndexByte(name, '.'):], ".")
	for _, from := range []string{kind, unit.Template(name), name} { // the nearer one hides a file of the same name
		if u := all[from]; u != nil {
			maps.Copy(dropIns, u.dropIns)
			if u.own != "" {
				files = []string{u.own}
			}
		}
	}
	for _, file := range slices.Sorted(maps.Keys(dropIns)) {
		if file != unit.Closure {
			files = append(files, dropIns[file])
		}
	}
	return files
}

// readUnit reads a file of a unit. One that is masked, or a link to nowhere, sets
// nothing.
func readUnit(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeDevice != 0 {
		return nil, nil
	}
	return bounded.ReadFile(file, maxUnit)
}

func findUnits(root string) units {
	all := units{}
	of := func(name string) *unitFiles {
		if all[name] == nil {
			all[name] = &unitFiles{dropIns: map[string]string{}}
		}
		return all[name]
	}
	for _, dir := range unitDirs {
		dir = filepath.Join(root, dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries[:min(len(entries), mostUnits)] {
			name, isDropIns := strings.CutSuffix(e.Name(), ".d")
			if !isDropIns {
				u := of(name)
				u.own = cmp.Or(u.own, filepath.Join(dir, name))
				continue
			}
			files, _ := os.ReadDir(filepath.Join(dir, e.Name())) // a link to nowhere has none
			for _, f := range files[:min(len(files), mostUnits)] {
				if path.Ext(f.Name()) == ".conf" && of(name).dropIns[f.Name()] == "" {
					of(name).dropIns[f.Name()] = filepath.Join(dir, e.Name(), f.Name())
				}
			}
		}
	}
	return all
}
