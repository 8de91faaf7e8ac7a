// Package kept keeps on a host what a container that starts need not wait for:
// the last good state of the policy, and what was proved of profiles.
package kept

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CacheDir is where root keeps what was proved, also when the machine is shut
// down. A proof depends on nothing that another start changes. Only root can
// write there: whoever can decides what counts as proved.
const CacheDir = "/var/cache/afalg-policy"

// StateDir is where things are kept until the machine is shut down: root's, or
// the one of a user who runs containers without being root.
func StateDir() string {
	const own = "/run/afalg-policy"
	if os.Geteuid() == 0 && os.MkdirAll(own, 0o755) == nil && unix.Access(own, unix.W_OK) == nil {
		return own
	}
	return filepath.Join(RunDir(), "afalg-policy")
}

// RunDir is the directory for this user's state.
func RunDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && filepath.IsAbs(dir) {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run"
	}
	return fmt.Sprintf("/run/user/%d", os.Geteuid())
}

// keptDirs lists the directories of a name in which only this user can write.
func keptDirs(name string) (dirs []string) {
	if os.Geteuid() == 0 && os.MkdirAll(CacheDir, 0o700) == nil && unix.Access(CacheDir, unix.W_OK) == nil {
		dirs = append(dirs, filepath.Join(CacheDir, name))
	}
	return append(dirs, filepath.Join(StateDir(), name))
}
