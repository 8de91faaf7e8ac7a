package vmtest

import (
	"encoding/json"
	"fmt"
	"path"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/vmtest/wire"
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
	// Config replaces the whole of config.json; Rootfs and what follows it is
	// then without effect.
	Config  []byte
	Stdin   []byte
	Timeout time.Duration
}

// Container runs a container to its end. What comes back is of the
// container's command, or of the runtime if that refuses.
func (vm *VM) Container(t testing.TB, c Container) Result {
	t.Helper()
	config := c.Config
	if config == nil {
		var err error
		if config, err = c.Spec(); err != nil {
			t.Fatal(err)
		}
	}
	bundle := vm.next("bundle")
	vm.WriteFile(t, path.Join(bundle, "config.json"), config, 0o644)
	return vm.Command(t, Command{
		Args:    []string{c.Runtime, "--root", wire.RunDir + "/" + c.Runtime, "run", "--bundle", bundle, path.Base(bundle)},
		Stdin:   c.Stdin,
		Timeout: c.Timeout,
	})
}

// next names a new directory.
func (vm *VM) next(kind string) string {
	vm.made++
	return fmt.Sprintf("%s/%s-%d", wire.RunDir, kind, vm.made)
}

// Rootfs makes a root file system that holds the given files and the
// directories that a runtime mounts on, and nothing else. The map leads from
// a path in it to one of the machine. It serves any number of containers.
func (vm *VM) Rootfs(t testing.TB, files map[string]string) string {
	t.Helper()
	root := vm.next("rootfs")
	dirs := []string{"mkdir", "-p"}
	for _, m := range mounts() {
		dirs = append(dirs, root+m.Destination)
	}
	vm.Output(t, dirs...)
	for in, from := range files {
		vm.Output(t, "install", "-D", "-m", "755", from, path.Join(root, in))
	}
	return root
}

// HostRoot is the machine's own root as a container's, read-only: for
// workloads that need an installed system.
func (vm *VM) HostRoot(t testing.TB) string {
	t.Helper()
	root := vm.next("rootfs")
	vm.Output(t, "mkdir", "-p", root)
	vm.Output(t, "mount", "--bind", "/", root)
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
	capabilities := capabilities()
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

// linux puts the profile in as it is: decoding it into a struct would lose
// what the struct does not know.
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

// capabilities are those of a Docker container.
func capabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}
