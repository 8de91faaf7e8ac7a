package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/kept"
)

// Where the program and the policy lie on the host. Everything that is installed
// names them, so that it stands without any pod.
const (
	HostDir     = "/opt/afalg-policy"
	HostProgram = HostDir + "/afalg-policy"
	HostPolicy  = HostDir + "/policy.yaml"
)

// profiles is the platform of Localhost profiles.
const profiles = "kubernetes"

// HostPlatforms are what a pod installs, in the order in which it takes them back.
func HostPlatforms() []string { return []string{"containerd", "crio", "agent"} }

const (
	maxPolicy  = 1 << 20
	maxProgram = 256 << 20
	// commandLimit is for one command on the host. A restart of a runtime waits for
	// its plugins.
	commandLimit = 5 * time.Minute
	// settle is how long a runtime has to be in force after its restart.
	settle = time.Minute
)

// Host is the node below a directory of a container that sees its processes
// (hostPID), and is root of it.
type Host struct {
	Root string
	Self string // this program, as the container sees it
	Note func(format string, args ...any)
}

// ErrTakenBack says that the platform did not come up as installed.
var ErrTakenBack = errors.New("it was taken back, and the node is as it was")

// Install puts the program and the policy on the host and installs platforms there.
// A platform that is not in force afterwards is taken back.
func (h *Host) Install(ctx context.Context, policy string, platforms []string) error {
	for _, name := range platforms {
		if err := h.mine(name); err != nil {
			return err
		}
	}
	text, err := bounded.ReadFile(policy, maxPolicy)
	if err != nil {
		return fmt.Errorf("read the policy: %w", err)
	}
	if err := h.place(text); err != nil {
		return err
	}
	for _, name := range platforms {
		if err := h.install(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// install restarts a platform if its files changed, or if it does not use them,
// as after an install that ended before the restart.
func (h *Host) install(ctx context.Context, name string) error {
	out, err := h.run(ctx, HostProgram, "install", name, "--policy", HostPolicy, "--program", HostProgram, "--json")
	if err != nil {
		return err
	}
	var done struct {
		Changes []struct{ Path, What string }
	}
	if err := json.Unmarshal(out, &done); err != nil {
		return fmt.Errorf("read what install did: %w", err)
	}
	for _, c := range done.Changes {
		h.Note("%s: %s %s", name, c.What, c.Path)
	}
	if len(done.Changes) == 0 && h.inForce(ctx, name) == nil {
		h.Note("%s: unchanged, and in force", name)
		return nil
	}
	err = h.restart(ctx, install.RestartCommands(name, false))
	if err == nil {
		err = h.settle(ctx, name)
	}
	if err == nil {
		h.Note("%s: in force", name)
		return nil
	}
	if back := h.takeBack(context.WithoutCancel(ctx), name); back != nil {
		return errors.Join(err, fmt.Errorf("take it back: %w", back))
	}
	return fmt.Errorf("%w; %w", err, ErrTakenBack)
}

// Remove takes back what pods installed on the host, and what Localhost profiles
// they wrote; then the program goes. What an administrator installed by hand stays.
func (h *Host) Remove(ctx context.Context) error {
	found, err := h.ours()
	if err != nil {
		return err
	}
	if len(found) > 0 {
		// The program may be gone, or be of a version that cannot read the record.
		if err := h.place(nil); err != nil {
			return err
		}
	}
	for _, name := range found {
		if err := h.takeBack(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := h.removeProfiles(); err != nil {
		return err
	}
	if err := h.clear(); err != nil { // what an interrupted installation left
		return err
	}
	return h.forget()
}

// forget removes the proofs of agents in pods, unless an installation by hand uses
// them.
func (h *Host) forget() error {
	for _, name := range HostPlatforms() {
		if program, err := h.installedBy(name); err != nil || program != "" {
			return err
		}
	}
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return hosterr.Errorf("open the node: %w", err)
	}
	defer root.Close()
	if err := root.RemoveAll(inRoot(kept.CacheDir)); err != nil {
		return hosterr.Errorf("remove %s on the node: %w", kept.CacheDir, err)
	}
	return nil
}

// ours lists the platforms that pods installed.
func (h *Host) ours() ([]string, error) {
	var found []string
	for _, name := range HostPlatforms() {
		switch program, err := h.installedBy(name); {
		case err != nil:
			return nil, err
		case program == HostProgram:
			found = append(found, name)
		case program != "":
			h.Note("%s: installed by hand with %s, and stays", name, program)
		}
	}
	return found, nil
}

// removeProfiles takes back the Localhost profiles, which takes no program of the
// host and no restart.
func (h *Host) removeProfiles() error {
	root, err := host.Open(h.Root)
	if err != nil {
		return err
	}
	r, err := root.ReadRecord(profiles)
	root.Close()
	if err != nil || r == nil {
		return err
	}
	if _, err := install.Uninstall(profiles, h.Root, false); err != nil {
		return fmt.Errorf("%s: %w", profiles, err)
	}
	h.Note("%s: taken back", profiles)
	return nil
}

// takeBack restores a platform. With the last one the program goes.
func (h *Host) takeBack(ctx context.Context, name string) error {
	if _, err := h.run(ctx, HostProgram, "uninstall", name); err != nil {
		return err
	}
	h.Note("%s: taken back", name)
	if err := h.restart(ctx, install.RestartCommands(name, true)); err != nil {
		return err
	}
	if left, err := h.ours(); err != nil || len(left) > 0 {
		return err
	}
	return h.clear()
}

// mine refuses a platform that somebody else installed: the chart would take over
// its options, and take it away when it goes.
func (h *Host) mine(name string) error {
	if !slices.Contains(HostPlatforms(), name) {
		return host.Usage("platform %q: a pod installs %s", name, strings.Join(HostPlatforms(), ", "))
	}
	program, err := h.installedBy(name)
	if err == nil && program != "" && program != HostProgram {
		err = fmt.Errorf("%s was installed on this node by hand, with %s: take it back there first (%s uninstall %s), or leave this node out by nodeSelector", name, program, program, name)
	}
	return err
}

// installedBy returns the program that a platform was installed with, or nothing.
func (h *Host) installedBy(name string) (string, error) {
	root, err := host.Open(h.Root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	r, err := root.ReadRecord(name)
	if err != nil || r == nil {
		return "", err
	}
	return r.Options["program"], nil
}

func (h *Host) restart(ctx context.Context, commands []string) error {
	for _, c := range commands {
		h.Note("run on the host: %s", c)
		if _, err := h.run(ctx, strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) inForce(ctx context.Context, name string) error {
	_, err := h.run(ctx, HostProgram, "status", "--no-probe", name)
	return err
}

func (h *Host) settle(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		err := h.inForce(ctx, name)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not in force: %w", err)
		case <-time.After(time.Second):
		}
	}
}

// run runs a command in the host's root. Process 1 of the host has the same
// root, so that systemctl does not take it for an image.
func (h *Host) run(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	program, err := h.program(args[0])
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, program, args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: h.Root}
	c.Dir = "/"
	c.Env = []string{"PATH=" + host.SystemPath, "LANG=C.UTF-8"}
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return out, hosterr.Errorf("%s on the host: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// program is where the host has a program.
func (h *Host) program(name string) (string, error) {
	if path.IsAbs(name) {
		return name, nil
	}
	root, err := host.Open(h.Root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	return root.LookPath(name)
}

// place writes this program, and the policy unless it is nil, whole or not at all.
func (h *Host) place(policy []byte) error {
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return hosterr.Errorf("open the node: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(inRoot(HostDir), 0o755); err != nil {
		return hosterr.Errorf("make %s on the node: %w", HostDir, err)
	}
	program, err := bounded.ReadFile(h.Self, maxProgram)
	if err != nil {
		return hosterr.Errorf("read this program: %w", err)
	}
	if err := replace(root, HostProgram, program, 0o755); err != nil {
		return err
	}
	if policy == nil {
		return nil
	}
	return replace(root, HostPolicy, policy, 0o644)
}

// replace leaves a file alone that is right already: it may be running.
func replace(root *os.Root, p string, data []byte, mode fs.FileMode) error {
	p = inRoot(p)
	if now, err := root.Lstat(p); err == nil && now.Mode() == mode && now.Size() == int64(len(data)) {
		if same, err := root.ReadFile(p); err == nil && string(same) == string(data) {
			return nil
		}
	}
	beside := p + ".new" // always the same: what a pod that was killed left goes away
	err := root.RemoveAll(beside)
	if err == nil {
		err = write(root, beside, data, mode)
	}
	if err == nil {
		err = root.Rename(beside, p)
	}
	if err != nil {
		return hosterr.Errorf("write /%s on the node: %w", p, errors.Join(err, root.RemoveAll(beside)))
	}
	return nil
}

func write(root *os.Root, p string, data []byte, mode fs.FileMode) (err error) {
	f, err := root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// clear removes the program and the policy. Nothing names them any more.
func (h *Host) clear() error {
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return hosterr.Errorf("open the node: %w", err)
	}
	defer root.Close()
	for _, p := range []string{HostProgram, HostPolicy} {
		if err := root.Remove(inRoot(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return hosterr.Errorf("remove %s on the node: %w", p, err)
		}
	}
	if err := root.Remove(inRoot(HostDir)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return hosterr.Errorf("remove %s on the node: %w", HostDir, err)
	}
	return nil
}

func inRoot(p string) string { return strings.TrimPrefix(p, "/") }
