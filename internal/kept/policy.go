package kept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// A slip in the policy would stop every container of a host. So what was last
// read of it is kept, and is in force while the file itself cannot be read. That
// is said each time; and where nothing is kept, nothing starts.

// plansName is the directory of what is kept, beside the proofs.
const plansName = "plans"

// LivePolicy reads the policy that a host's containers start under. While it
// cannot be read its last good state stays in force, and warn is told.
func LivePolicy(name string, warn func(text string)) (*plan.Plan, error) {
	p, _, err := plan.Load(name, plan.ReadNamed)
	if err == nil {
		if err := KeepPolicy(name, p); err != nil {
			warn(fmt.Sprintf("afalg-policy: a slip in the policy will stop containers: %v", err))
		}
		return p, nil
	}
	return Fallback(name, err, warn)
}

// Fallback is the last good state of a policy that could not be read because of
// err, which is returned if there is none. It tells by warn what is in force.
func Fallback(name string, err error, warn func(text string)) (*plan.Plan, error) {
	kept := LastPolicy(name)
	if kept == nil {
		return nil, err
	}
	warn(fmt.Sprintf("afalg-policy: the policy %s cannot be read, and its last good state (%s) stays in force: %v", name, kept.Digest, err))
	return kept, nil
}

// KeepPolicy keeps a plan as the last good state of the policy of that name,
// where there is a place for it.
func KeepPolicy(name string, p *plan.Plan) error {
	if store := planStore(name); store != nil {
		return store.Keep(name, p)
	}
	return nil
}

// planStore is where what was read of a policy is kept; nil for one that cannot
// change, or whose name depends on who reads it, and if there is no place.
func planStore(name string) *plan.Store {
	if !keepable(name) {
		return nil
	}
	for _, dir := range keptDirs(plansName) {
		if os.MkdirAll(dir, 0o700) == nil && ownDirectory(dir) {
			return &plan.Store{Dir: dir, Read: plan.ReadFile}
		}
	}
	return nil
}

func keepable(name string) bool {
	return !strings.HasPrefix(name, policy.BuiltinPrefix) && filepath.IsAbs(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

func ownDirectory(dir string) bool {
	return oci.Private(dir) == nil && oci.Private(filepath.Dir(dir)) == nil
}

// LastPolicy is the last good state of a policy, or nil. The agent's unit can read
// it and not write there.
func LastPolicy(name string) *plan.Plan {
	dirs := []string{filepath.Join(StateDir(), plansName)}
	if os.Geteuid() == 0 {
		dirs = append([]string{filepath.Join(CacheDir, plansName)}, dirs...)
	}
	for _, dir := range dirs {
		if !keepable(name) || !ownDirectory(dir) {
			continue
		}
		if p, err := (plan.Store{Dir: dir, Read: plan.ReadFile}).Kept(name); err == nil {
			return p
		}
	}
	return nil
}
