package lsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
)

// Relying is a container that started only because the policy was in force in
// the kernel. It is written down apart from the state, which goes with an unload.
type Relying struct {
	Grantee
	Platform string `json:"platform"`
}

func relyingDir() string              { return filepath.Join(StateDir, "relying") }
func (g Grantee) relyingFile() string { return filepath.Join(relyingDir(), fmt.Sprint(g.Cgroup)) }
func (g Grantee) living() bool        { id, err := cgroupID(g.Path); return err == nil && id == g.Cgroup }
func byID(a, b Relying) int           { return strings.Compare(a.ID, b.ID) }

// Rely writes down that a registered container relies on the kernel half, and
// forgets those that are gone.
func Rely(r Relying) error {
	if err := os.MkdirAll(relyingDir(), 0o700); err != nil {
		return err
	}
	if _, err := RelyingNow(); err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return renameio.WriteFile(r.relyingFile(), append(text, '\n'), 0o600)
}

// RelyingNow lists the containers that rely on the kernel half, by ID.
func RelyingNow() ([]Relying, error) {
	files, err := os.ReadDir(relyingDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Relying
	for _, f := range files {
		path := filepath.Join(relyingDir(), f.Name())
		text, err := bounded.ReadFile(path, maxState)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another start has just forgotten it
		}
		if err != nil {
			return nil, err
		}
		var r Relying
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if !r.living() {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, byID)
	return all, nil
}
