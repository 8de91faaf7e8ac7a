package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

const (
	systemdPath = "/lib/systemd/systemd"
	target      = "vmtest.target"
)

// units make a system that starts the agent and nothing else. A service under
// test pulls in sysinit.target, as it does anywhere. There is no journal, so it
// prints to a file.
var units = map[string]string{
	target: `[Unit]
Description=Test machine
Requires=vmtest-agent.service
`,
	"vmtest-agent.service": `[Unit]
Description=Test machine's agent
DefaultDependencies=no

[Service]
ExecStart=` + agentPath + ` agent
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Delegate=yes
`,
}

// unwanted lists the host's own settings, and a real machine's work at boot:
// useless here, and slow.
var unwanted = []string{
	"/etc/systemd/system",
	"/lib/systemd/system/sysinit.target.wants",
	"/lib/systemd/system/sockets.target.wants",
	"/lib/systemd/system/local-fs.target.wants",
	"/lib/systemd/system-generators",
}

// startSystemd replaces process 1.
func startSystemd(before string) error {
	if err := isolate("", units); err != nil {
		return err
	}
	script := exec.Command("/bin/sh", "-ec", before)
	script.Env = []string{"PATH=" + path}
	if out, err := script.CombinedOutput(); err != nil {
		return fmt.Errorf("before systemd: %w: %s", err, out)
	}
	return unix.Exec(systemdPath, []string{systemdPath, "--unit=" + target, "--show-status=no"},
		[]string{"PATH=" + path, "SYSTEMD_LOG_TARGET=console"})
}

// isolate removes a root's units and adds those of the system.
func isolate(root string, units map[string]string) error {
	for _, dir := range unwanted {
		if err := os.RemoveAll(root + dir); err != nil {
			return err
		}
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range units {
		if err := os.WriteFile(root+"/etc/systemd/system/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
