package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const newRoot = "/newroot"

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// early is mounted in the initramfs before the modules are loaded.
var early = []mount{
	{"dev", "/dev", "devtmpfs", 0, ""},
	{"proc", "/proc", "proc", 0, ""},
	{"sys", "/sys", "sysfs", 0, ""},
}

// emptyRoot holds nothing but the tests' files, in memory.
var emptyRoot = []mount{
	{"root", newRoot, "tmpfs", 0, "mode=755,size=75%"},
	{"tmp", newRoot + "/tmp", "tmpfs", 0, "mode=1777"},
}

// root is the host's root, read-only, under a layer in memory for the tests'
// files.
var root = []mount{
	{"host0", "/host", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=524288,cache=loose"},
	{"layer", "/layer", "tmpfs", 0, "mode=755,size=75%"},
	{"root", newRoot, "overlay", 0, "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"},
}

// system is mounted in the new root. The layer keeps /tmp, so that the host's
// files there are visible.
var system = []mount{
	{"dev", "/dev", "devtmpfs", 0, ""},
	{"devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666"},
	{"shm", "/dev/shm", "tmpfs", 0, ""},
	{"mqueue", "/dev/mqueue", "mqueue", 0, ""},
	{"proc", "/proc", "proc", 0, ""},
	{"sys", "/sys", "sysfs", 0, ""},
	{"security", "/sys/kernel/security", "securityfs", 0, ""},
	{"debug", "/sys/kernel/debug", "debugfs", 0, ""},
	{"trace", "/sys/kernel/tracing", "tracefs", 0, ""},
	{"bpf", "/sys/fs/bpf", "bpf", 0, ""},
	{"cgroup", "/sys/fs/cgroup", "cgroup2", 0, "nsdelegate"},
	{"run", "/run", "tmpfs", 0, "mode=755"},
}

// setUp turns the initramfs into the running system.
func setUp() (wire.Config, error) {
	config, err := readConfig()
	if err != nil {
		return config, err
	}
	steps := []func() error{
		func() error { return mountAll("", early) },
		loadModules,
		func() error { return makeRoot(config) },
		func() error { return mountAll(newRoot, system) },
		linkStreams,
		installAgent,
		switchRoot,
		func() error { return unix.Sethostname([]byte("vmtest")) },
		loopbackUp,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return config, err
		}
	}
	return config, nil
}

func makeRoot(config wire.Config) error {
	if config.Alone {
		return mountAll("", emptyRoot)
	}
	if err := mountAll("", root[:2]); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/layer/upper", 0o755), os.Mkdir("/layer/work", 0o755)); err != nil {
		return err
	}
	if err := mountAll("", root[2:]); err != nil {
		return err
	}
	return linkModuleTree(config.ModuleTree)
}

func readConfig() (wire.Config, error) {
	var config wire.Config
	data, err := os.ReadFile(wire.ConfigPath)
	if err != nil {
		return config, err
	}
	return config, json.Unmarshal(data, &config)
}

func mountAll(under string, mounts []mount) error {
	for _, m := range mounts {
		target := under + m.target
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, target, err)
		}
	}
	return nil
}

func loadModules() error {
	modules, err := filepath.Glob(wire.ModulesDir + "/*.ko") // sorted
	if err != nil {
		return err
	}
	for _, path := range modules {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return os.RemoveAll(wire.ModulesDir)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// linkStreams makes the links in /dev that udev would make.
func linkStreams() error {
	links := []string{"fd", "fd/0", "fd/1", "fd/2"}
	for i, name := range []string{"fd", "stdin", "stdout", "stderr"} {
		if err := os.Symlink("/proc/self/"+links[i], newRoot+"/dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

func linkModuleTree(tree string) error {
	dir := newRoot + "/usr/lib/modules"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	link := filepath.Join(dir, filepath.Base(tree))
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	return os.Symlink(tree, link)
}

func installAgent() error {
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot+wire.RunDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(newRoot+agentPath, self, 0o755)
}

// switchRoot moves the new root onto /, as switch_root(8) does: runtimes
// cannot pivot_root away from an initramfs.
func switchRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return os.Chdir("/")
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq)
}
