// Package hold has the service manager hold the links of the programs in the
// kernel besides their pins: whoever unmounts bpffs or removes a pin takes
// nothing out of force.
package hold

import (
	"context"
	"errors"
	"os/exec"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/manager"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// The names of the links in the manager's store.
const (
	held = "links"
	next = "links-next"
)

// After tells the service manager how a load went, and has it hold the links in
// place of those before. It returns the error of the load, or its own. Without a
// manager there is nothing to do.
func After(loaded error) error {
	m, _, err := manager.Find()
	switch {
	case err != nil:
		return errors.Join(loaded, err)
	case !m.Present():
		return loaded
	case loaded != nil:
		return errors.Join(loaded, m.Tell("STATUS="+strings.ReplaceAll(loaded.Error(), "\n", "; ")))
	}
	if err := replace(m); err != nil {
		return hosterr.Errorf("the policy is in force, and held by its pins alone: %w", err)
	}
	return nil
}

// replace puts the new links into the store before it drops the old ones. The
// manager removes by name, does not list the names it has, and takes no open
// file twice: each name has descriptors of its own.
func replace(m manager.Manager) error {
	keep := func(name string) error {
		return lsm.Links(func(fds ...int) error { return m.Keep(name, fds...) })
	}
	for _, step := range []func() error{
		func() error { return keep(next) },
		func() error { return m.Forget(held) },
		func() error { return keep(held) },
		func() error { return m.Forget(next) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// End has the service manager give the links away, by stopping the service. The
// pins still hold them.
func End(ctx context.Context) error { return Stop(ctx, unit.LSMService) }

// Stop stops units that run. Where there is no service manager, none does.
func Stop(ctx context.Context, units ...string) error {
	for _, name := range units {
		state, _ := exec.CommandContext(ctx, "systemctl", "is-active", name).Output()
		switch strings.TrimSpace(string(state)) {
		case "", "inactive", "unknown":
			continue
		}
		if out, err := exec.CommandContext(ctx, "systemctl", "stop", name).CombinedOutput(); err != nil {
			return hosterr.Errorf("stop %s: %w: %s", name, err, out)
		}
	}
	return nil
}
