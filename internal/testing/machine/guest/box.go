package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const (
	boxRoot = "/run/box/root"
	lower   = "/run/box/lower"
	layer   = "/run/box/layer"
)

// boxMounts make the root of a box, in a mount and process namespace of its
// own. /run hides the host's, where systemd-nspawn would leave files.
var boxMounts = []mount{
	{"", "/", "", unix.MS_PRIVATE | unix.MS_REC, ""},
	{"proc", "/proc", "proc", 0, ""},
	{"run", "/run", "tmpfs", 0, "mode=755"},
	{"/", lower, "", unix.MS_BIND, ""}, // without the mounts below it
	{"layer", layer, "tmpfs", 0, "mode=755"},
}

var boxOverlay = []mount{
	{"root", boxRoot, "overlay", 0, "lowerdir=" + lower + ",upperdir=" + layer + "/upper,workdir=" + layer + "/work"},
}

// boxUnits make the system of a box: its agent, or a shell.
func boxUnits(shell bool) map[string]string {
	text := maps.Clone(units)
	if shell {
		text["vmtest-agent.service"] = `[Unit]
DefaultDependencies=no

[Service]
Type=idle
ExecStart=/bin/bash -l
ExecStopPost=/bin/systemctl exit
Environment=HOME=/root TERM=linux
WorkingDirectory=/root
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Delegate=yes
`
	} else {
		text["vmtest-agent.service"] = strings.Replace(text["vmtest-agent.service"], agentPath, wire.BoxDir+"/agent", 1)
	}
	return text
}

// startBox replaces itself by systemd-nspawn, which boots systemd in namespaces
// of its own. It is already the first process of one, so that the box ends with
// it. Its arguments are the directory that the host shares, the name of the
// box's cgroups, "shell" for a shell, and "controllers" for those of cgroups.
func startBox() error {
	if len(os.Args) < 4 {
		return errors.New("box DIRECTORY NAME [shell] [controllers]")
	}
	shared, name, options := os.Args[2], os.Args[3], os.Args[4:]
	shell, unified := slices.Contains(options, "shell"), "1" // crun takes no other, whatever the host has
	if slices.Contains(options, "controllers") && !unifiedHost() {
		unified = "0" // the hierarchy of the host has the controllers
	}
	if err := mountAll("", boxMounts); err != nil {
		return err
	}
	if err := enterCgroups(name); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(layer+"/upper", 0o755), os.Mkdir(layer+"/work", 0o755)); err != nil {
		return err
	}
	if err := mountAll("", boxOverlay); err != nil {
		return err
	}
	if err := os.WriteFile(boxRoot+"/etc/hostname", []byte("box\n"), 0o644); err != nil {
		return err
	}
	if err := isolate(boxRoot, boxUnits(shell)); err != nil {
		return err
	}
	console := "--console=read-only"
	if shell {
		console = "--console=interactive"
	}
	args := []string{"/usr/bin/systemd-nspawn", "--quiet", "--directory=" + boxRoot, "--boot", "--private-network", "--register=no", "--keep-unit",
		"--capability=all", "--bind=" + shared + ":" + wire.BoxDir, "--bind=/dev/fuse", console}
	return unix.Exec(args[0], append(args, "systemd.unit="+target, "systemd.show_status=no", "systemd.log_target=console"), []string{
		"PATH=" + path, "TERM=" + os.Getenv("TERM"),
		"SYSTEMD_SECCOMP=0",          // its filter would stand before ours
		"SYSTEMD_NSPAWN_TMPFS_TMP=0", // the host's files in /tmp stay visible
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=" + unified,
	})
}

// enterCgroups makes a cgroup of that name in each hierarchy that systemd-nspawn
// divides, and moves there.
func enterCgroups(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := inheritCPUs(root, dir); err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("enter %s: %w", dir, err)
		}
	}
	return nil
}

// inheritCPUs copies what a new cgroup of the controller cpuset lacks: without
// it, the cgroup takes no process.
func inheritCPUs(from, to string) error {
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		value, err := os.ReadFile(from + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+name, value, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unifiedHost reports whether the host has all its controllers in cgroup2.
func unifiedHost() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupRoots lists the mounts of cgroups: of cgroup2, and on older hosts those of
// each controller.
func cgroupRoots() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var roots []string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[1], "/sys/fs/cgroup") && (f[2] == "cgroup2" || f[2] == "cgroup") {
			roots = append(roots, f[1])
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("no cgroups are mounted")
	}
	return roots, nil
}
