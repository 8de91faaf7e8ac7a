package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Any reports whether a platform of this host is installed. An unreadable
// record counts as installed.
func Any() bool {
	h, err := host.Open("/")
	if err != nil {
		return true
	}
	defer h.Close()
	for _, p := range platforms() {
		if r, err := readRecord(h, p.name); err != nil || r != nil {
			return true
		}
	}
	return false
}

// Policies lists the policies that platforms below a root are under, as they were
// named when they were installed.
func Policies(root string) (names []string, err error) {
	h, err := host.Open(root)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, p := range platforms() {
		r, err := readRecord(h, p.name)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Options["policy"] != "" && !slices.Contains(names, r.Options["policy"]) {
			names = append(names, r.Options["policy"])
		}
	}
	return names, nil
}

// Profiles reads the hardened default profiles of this host's platforms.
func Profiles() (all [][]byte, err error) {
	paths, err := filepath.Glob(filepath.Join(seccompDir, "*.json"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, err
}
