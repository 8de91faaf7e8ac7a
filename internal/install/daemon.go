package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// daemonProcess is a running daemon.
type daemonProcess struct {
	pid     int
	started time.Duration // since boot
	path    string        // its PATH
}

// after reports whether the daemon was started after a moment, or in the same
// tick.
func (d daemonProcess) after(m host.Moment) bool {
	return m.Boot != host.Now().Boot || d.started+time.Second/ticks > m.Uptime
}

// findDaemon finds a process by name in this PID namespace: a daemon inside a
// container is another one.
func findDaemon(name string) (daemonProcess, error) {
	mine, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return daemonProcess{}, err
	}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return daemonProcess{}, err
	}
	for _, comm := range comms {
		dir := filepath.Dir(comm)
		text, _ := os.ReadFile(comm)
		ns, _ := os.Readlink(dir + "/ns/pid")
		if strings.TrimSpace(string(text)) != name || ns != mine {
			continue
		}
		if d, err := readDaemon(dir); err == nil {
			return d, nil
		}
	}
	return daemonProcess{}, fmt.Errorf("%s does not run", name)
}

// ticks is the number of ticks a second in /proc, the same on every machine
// that Go knows.
const ticks = 100

func readDaemon(dir string) (daemonProcess, error) {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return daemonProcess{}, err
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return daemonProcess{}, err
	}
	// The name, in parentheses, may contain spaces. The start is field 22.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return daemonProcess{}, errors.New("/proc/PID/stat is short")
	}
	start, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return daemonProcess{}, err
	}
	environ, err := os.ReadFile(dir + "/environ")
	if err != nil {
		return daemonProcess{}, err
	}
	d := daemonProcess{pid: pid, started: time.Duration(start) * time.Second / ticks}
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			d.path = value
		}
	}
	return d, nil
}

// current returns an error that says why a daemon does not use what is
// installed. dir has to be the first directory in its PATH.
func current(name string, r *host.Record, dir string) error {
	d, err := findDaemon(name)
	if err != nil {
		return err
	}
	if !d.after(r.Moment) {
		return fmt.Errorf("%s, process %d, was started before: %w", name, d.pid, errStale)
	}
	if first, _, _ := strings.Cut(d.path, ":"); dir != "" && first != dir {
		return fmt.Errorf("%s, process %d, was started without %s in front in its PATH, as the drop-in has it: a program that calls runc by name bypasses the wrapper; %w", name, d.pid, dir, errStale)
	}
	return nil
}

// elsewhere lists variables that lead a client to a daemon on another host, or
// to another configuration.
var elsewhere = []string{"DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE", "CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE"}

// here is the environment for programs that are asked about this host.
func here() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(elsewhere, name)
	})
}

// ask runs a program and returns what it prints.
func ask(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay, cmd.Env = time.Second, here()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("%s %s took too long", name, args[0])
	case err != nil && errs.Len() > 0:
		err = fmt.Errorf("%s %s: %s", name, args[0], lastLine(errs.String()))
	case err != nil:
		err = fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out.String(), err
}
