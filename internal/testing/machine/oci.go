package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Runtimes lists the container runtimes that the machine has.
func Runtimes() []string { return []string{"runc", "crun"} }

// Container is one run of an OCI runtime.
type Container struct {
	Runtime string
	Rootfs  string   // from Rootfs or HostRoot
	Args    []string // the command
	Env     []string // added to PATH
	// Seccomp is linux.seccomp of config.json, byte for byte; nil for none.
	Seccomp  json.RawMessage
	AppArmor string // name of a loaded profile
	// Config replaces the whole of config.json; Rootfs and the fields after it
	// then have no effect.
	Config  []byte
	Stdin   []byte
	Timeout time.Duration
}

// Container runs a container to its end. The result is that of its command, or
// of the runtime if that refuses.
func (m *Machine) Container(t testing.TB, c Container) Result {
	t.Helper()
	config := c.Config
	if config == nil {
		var err error
		if config, err = c.Spec(); err != nil {
			t.Fatal(err)
		}
	}
	bundle := m.Next("bundle")
	m.WriteFile(t, path.Join(bundle, "config.json"), config, 0o644)
	return m.Command(t, Command{
		Args:    []string{c.Runtime, "--root", wire.RunDir + "/" + c.Runtime, "run", "--bundle", bundle, path.Base(bundle)},
		Stdin:   c.Stdin,
		Timeout: c.Timeout,
	})
}

// Next names a new directory.
func (m *Machine) Next(kind string) string {
	m.made++
	return fmt.Sprintf("%s/%s-%d", wire.RunDir, kind, m.made)
}

// Rootfs makes a root file system that holds only the given files and the
// directories that a runtime mounts on. The map leads from a path in it to one
// of the machine. Any number of containers can use it.
func (m *Machine) Rootfs(t testing.TB, files map[string]string) string {
	t.Helper()
	root := m.Next("rootfs")
	dirs := []string{"mkdir", "-p"}
	for _, m := range mounts() {
		dirs = append(dirs, root+m.Destination)
	}
	m.Output(t, dirs...)
	for in, from := range files {
		m.Output(t, "install", "-D", "-m", "755", from, path.Join(root, in))
	}
	return root
}

// HostRoot is the machine's own root as a container's, read-only: for
// workloads that need an installed system.
func (m *Machine) HostRoot(t testing.TB) string {
	t.Helper()
	root := m.Next("rootfs")
	m.Output(t, "mkdir", "-p", root)
	m.Output(t, "mount", "--bind", "/", root)
	return root
}

// Spec is the container's config.json: a root with Docker's default
// capabilities in namespaces of its own.
func (c Container) Spec() ([]byte, error) {
	linux, err := c.linux()
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		specs.Spec
		Linux json.RawMessage `json:"linux"`
	}{c.spec(), linux})
}

func (c Container) spec() specs.Spec {
	capabilities := Capabilities()
	return specs.Spec{
		Version: "1.0.2", // the newest that Debian 12's runtimes know
		Process: &specs.Process{
			Args: c.Args,
			Env:  append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, c.Env...),
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
			NoNewPrivileges: true,
			ApparmorProfile: c.AppArmor,
		},
		Root:     &specs.Root{Path: c.Rootfs, Readonly: true},
		Hostname: "container",
		Mounts:   mounts(),
	}
}

// linux inserts the profile unchanged: decoding it into a struct would lose
// unknown keys.
func (c Container) linux() (json.RawMessage, error) {
	return json.Marshal(struct {
		Namespaces []specs.LinuxNamespace `json:"namespaces"`
		Seccomp    json.RawMessage        `json:"seccomp,omitempty"`
	}{
		[]specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
		},
		c.Seccomp,
	})
}

func mounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
	}
}

// Capabilities returns those of a Docker container.
func Capabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// Running starts a container that stays until the test ends. Its runtime keeps
// its state in the default place.
func (m *Machine) Running(t testing.TB, c Container, name string) {
	t.Helper()
	config, err := c.Spec()
	if err != nil {
		t.Fatal(err)
	}
	bundle := m.Next("bundle")
	m.WriteFile(t, bundle+"/config.json", config, 0o644)
	m.Output(t, "sh", "-c", fmt.Sprintf("exec %s run --detach --bundle %s %s </dev/null >/dev/null 2>%s/log || { cat %s/log; false; }", c.Runtime, bundle, name, bundle, bundle))
	t.Cleanup(func() { // t.Context has ended
		remove := Command{Args: []string{c.Runtime, "delete", "--force", name}}
		if r, err := m.Do(context.Background(), remove); err != nil || r.Exit != 0 {
			t.Errorf("%v: %v\n%s", remove.Args, err, r.Stderr)
		}
	})
}
