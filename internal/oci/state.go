package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// ReadState reads the state that a runtime gives to a hook, and checks that the
// hook is called in the stage createRuntime: the container is being created,
// and the hook is outside of it.
func ReadState(text []byte) (*specs.State, error) {
	v, err := profile.ReadJSON(text)
	if err != nil {
		return nil, err
	}
	// Annotations may differ by case alone.
	if err := profile.NoDuplicates(text, &v, strings.Clone); err != nil {
		return nil, err
	}
	if !peek(text).isState() {
		return nil, errors.New("this is no state of a container: a hook createRuntime gets one, and precreate the spec")
	}
	var s specs.State
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	// runc says creating, crun says created.
	if s.Status != specs.StateCreating && s.Status != specs.StateCreated {
		return nil, fmt.Errorf("the container is %q: the hook is registered for another stage than createRuntime", s.Status)
	}
	if !filepath.IsAbs(s.Bundle) {
		return nil, fmt.Errorf("the bundle %q is no absolute path", s.Bundle)
	}
	return &s, outside(s.Pid)
}

// outside tells whether the container's first process has file systems of its
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
	text, err := plan.ReadRegular(path, MaxSpec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// Sealed tells whether somebody besides root and the user of this process can
// change the spec of a bundle: what a runtime has read may not be what stands
// there then.
func Sealed(dir string) error {
	config, err := filepath.EvalSymlinks(filepath.Join(dir, ConfigName))
	if err != nil {
		return err
	}
	for _, path := range []string{dir, filepath.Dir(config), config} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if st.Uid != 0 && st.Uid != uint32(unix.Geteuid()) {
			return fmt.Errorf("%s belongs to user %d, who could have changed it since the runtime read it", path, st.Uid)
		}
		if st.Mode&0o022 != 0 {
			return fmt.Errorf("%s can be written by others (mode %04o), who could have changed it since the runtime read it", path, st.Mode&0o7777)
		}
	}
	return nil
}
