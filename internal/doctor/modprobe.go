package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
)

// modprobeDirs have the files of modprobe.d. Of one name, the file in the first
// directory counts.
var modprobeDirs = []string{"etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"}

const (
	maxModprobe = 1 << 20 // bytes of a file
	mostFiles   = 1000
)

// readBlocked says where each module is kept from being loaded on demand. Of several
// commands for one module each must refuse: which one modprobe takes is a matter of
// its version. "blacklist" alone does not stop a request by the kernel for a module
// by its name.
func readBlocked(root string) (blocked map[string]string, err error) {
	blocked = map[string]string{}
	free := map[string]bool{}
	for _, path := range modprobeFiles(root) {
		text, readErr := bounded.ReadFile(path, maxModprobe)
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", path, readErr))
			continue
		}
		for _, i := range hostfacts.Installs(string(text)) {
			switch name := hostfacts.Name(i.Module); {
			case !i.Refuses:
				free[name] = true
			case blocked[name] == "":
				blocked[name] = fmt.Sprintf("%s:%d", path, i.Line)
			}
		}
	}
	for name := range free {
		delete(blocked, name)
	}
	return blocked, err
}

func modprobeFiles(root string) (paths []string) {
	seen := map[string]bool{}
	for _, dir := range modprobeDirs {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			continue // there is none
		}
		for _, e := range entries[:min(len(entries), mostFiles)] {
			if name := e.Name(); strings.HasSuffix(name, ".conf") && !seen[name] && e.Type()&fs.ModeDir == 0 {
				seen[name] = true
				paths = append(paths, filepath.Join(root, dir, name))
			}
		}
	}
	return paths
}
