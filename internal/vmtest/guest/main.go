// Command guest is the test machine's side of package vmtest. As /init of the
// initramfs it mounts the host's root and becomes process 1 there, or hands
// that over to systemd; as "agent" it runs the commands that the host sends.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/vmtest/wire"
)

const agentPath = wire.RunDir + "/agent"

func main() {
	work := initialise
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		work = agent
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest guest:", err)
		os.Exit(1) // as process 1: the kernel panics, and the host sees why
	}
}

// initialise is process 1 from the initramfs on.
func initialise() error {
	config, err := setUp()
	if err != nil {
		return err
	}
	if config.Systemd {
		return startSystemd()
	}
	cmd := exec.Command(agentPath, "agent")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	return reapUntil(cmd.Process.Pid)
}

// reapUntil collects the orphans that process 1 inherits, until the given
// process ends.
func reapUntil(pid int) error {
	for {
		ended, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		case ended == pid:
			return fmt.Errorf("the agent ended")
		}
	}
}
