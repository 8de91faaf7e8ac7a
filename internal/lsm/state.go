package lsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// State is what a load writes down for the commands that follow. It decides
// nothing: the kernel has the table.
type State struct {
	Version    int        `json:"version"`
	Tool       string     `json:"tool"`
	Policy     string     `json:"policy"` // a path or builtin:NAME, as it was loaded
	Digest     string     `json:"digest"` // of its plan
	Audit      bool       `json:"audit"`
	Attachment Attachment `json:"attachment"`
	Generation uint64     `json:"generation"`
	Families   uint64     `json:"families"` // closed besides AF_ALG, by bit
	Programs   []string   `json:"programs"`
	Objects    string     `json:"objects"` // what the programs were loaded from
	Loaded     time.Time  `json:"loaded"`
	Gaps       []plan.Gap `json:"gaps"`               // what the table cannot say of the policy
	Accepted   []string   `json:"accepted,omitempty"` // names of wider ones
	Binaries   []string   `json:"binaries"`
	Containers []Grantee  `json:"containers,omitempty"`
}

// Grantee is a registered container.
type Grantee struct {
	ID     string   `json:"id"`
	Path   string   `json:"cgroup"`
	Cgroup uint64   `json:"cgroup-id"`
	Rules  []string `json:"rules"`
}

const (
	stateVersion = 1
	maxState     = 16 << 20
)

func stateFile() string { return filepath.Join(StateDir, "state.json") }
func lockFile() string  { return filepath.Join(StateDir, "lock") }

// ErrNotLoaded says that no policy is in force in the kernel.
var ErrNotLoaded = errors.New("no policy is loaded in the kernel: see `afalg-policy lsm load`")

// ReadState returns what the last load wrote.
func ReadState() (*State, error) {
	text, err := bounded.ReadFile(stateFile(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotLoaded
	}
	if err != nil {
		return nil, err
	}
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile(), err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s: version %d: this program reads version %d; load the policy again", stateFile(), s.Version, stateVersion)
	}
	return &s, nil
}

func (s *State) write() error {
	s.Version = stateVersion
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(stateFile(), append(text, '\n'), 0o600)
}

// lock makes changes one after the other, whoever makes them.
func lock() (unlock func(), err error) {
	if err := initialNamespaces(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(StateDir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}
