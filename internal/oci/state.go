package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// ReadState reads the state that a runtime gives to a hook, and checks that the
// hook is called in the stage createRuntime: the container is being created,
// and the hook is outside of it.
func ReadState(text []byte) (*specs.State, error) {
	d, err := jsontext.Parse(text)
	if err != nil {
		return nil, err
	}
	if !isState(d) {
		return nil, errors.New("this is no state of a container: a hook createRuntime gets one, and precreate the spec")
	}
	var s specs.State
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	// runc says creating, crun says created; and runc says stopped of a container
	// that it restores. A hook of poststop gets that too, and no process.
	if s.Status != specs.StateCreating && s.Status != specs.StateCreated && s.Status != specs.StateStopped {
		return nil, fmt.Errorf("the container is %q: the hook is registered for another stage than createRuntime", s.Status)
	}
	if !filepath.IsAbs(s.Bundle) {
		return nil, fmt.Errorf("the bundle %q is no absolute path", s.Bundle)
	}
	return &s, outside(s.Pid)
}

// outside reports whether the container's first process has file systems of its
// own: the later stages of hooks run among them.
func outside(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("the state names no process (pid %d): the hook is registered for another stage than createRuntime", pid)
	}
	own, err := mountNamespace("self")
	if err != nil {
		return err
	}
	its, err := mountNamespace(fmt.Sprint(pid))
	if err != nil {
		return fmt.Errorf("the container's process: %w", err)
	}
	if own == its {
		return fmt.Errorf("process %d of the container is in the mount namespace of this hook: either the hook is registered for another stage than createRuntime, or the container has no mount namespace", pid)
	}
	return nil
}

func mountNamespace(pid string) (uint64, error) {
	var st unix.Stat_t
	path := "/proc/" + pid + "/ns/mnt"
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return st.Ino, nil
}

// ConfigName is the spec in a bundle.
const ConfigName = "config.json"

// ReadBundle reads the spec of a bundle once. Links are followed, as runtimes
// do.
func ReadBundle(dir string) ([]byte, error) {
	path := filepath.Join(dir, ConfigName)
	text, err := bounded.ReadFile(path, MaxSpec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// Sealed reports whether somebody besides root and the user of this process can
// change the spec of a bundle: what a runtime has read may not be what stands
// there then.
func Sealed(dir string) error {
	config, err := filepath.EvalSymlinks(filepath.Join(dir, ConfigName))
	if err != nil {
		return err
	}
	for _, path := range []string{dir, filepath.Dir(config), config} {
		if err := ownOnly(path, "who could have changed it since the runtime read it"); err != nil {
			return err
		}
	}
	return nil
}

// ownOnly refuses a file or directory that somebody besides root and the user of
// this process can change; why says what that means.
func ownOnly(path, why string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Uid != 0 && st.Uid != uint32(unix.Geteuid()) {
		return fmt.Errorf("%s belongs to user %d, %s", path, st.Uid, why)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s can be written by others (mode %04o), %s", path, st.Mode&0o7777, why)
	}
	return nil
}
