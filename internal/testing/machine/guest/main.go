// Command guest is the test machine's side of package machine. As /init of an
// initramfs it mounts the host's root, or an empty one, and becomes process 1
// there, or leaves that to systemd. As "box" it does so in namespaces. As
// "agent" it runs the commands that the host sends.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const agentPath = wire.RunDir + "/agent"

func main() {
	work := initialise // for any arguments that the kernel's command line leaves for process 1
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			work = agent
		case "box":
			work = startBox
		}
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
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
		return startSystemd(config.Before)
	}
	if config.Shell {
		return shell()
	}
	cmd := exec.Command(agentPath, "agent")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	return reapUntil(cmd.Process.Pid)
}

// shell is for people: the machine ends with it.
func shell() error {
	tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/bash", "-l")
	cmd.Env = []string{"PATH=" + path, "HOME=/root", "TERM=linux"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	reapUntil(cmd.Process.Pid)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
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
			return errors.New("the agent ended")
		}
	}
}
