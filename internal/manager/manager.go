// Package manager talks to the service manager that started this process, as
// sd_notify(3) describes it: what it may know, and descriptors to keep.
package manager

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Manager is the address of a service manager; "" if there is none.
type Manager string

// patience bounds how long a manager that does not read can delay us.
const patience = 10 * time.Second

// Find takes the variables for this process out of its environment. It returns
// how often the manager's watchdog wants to hear from it; 0 is never.
func Find() (Manager, time.Duration, error) {
	address := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if address != "" && address[0] != '/' && address[0] != '@' {
		return "", 0, hosterr.Errorf("NOTIFY_SOCKET is %q: only a path and an abstract name (@) are known", address)
	}
	watch, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return "", 0, hosterr.Errorf("read what the watchdog wants: %w", err)
	}
	return Manager(address), watch, nil
}

// Present reports whether there is one.
func (m Manager) Present() bool { return m != "" }

// Tell sends assignments, if there is a manager.
func (m Manager) Tell(lines ...string) error { return m.send(lines) }

// Keep puts descriptors into the store, all under one name. The manager must
// not poll them (FDPOLL): it would drop a listener on EPOLLERR, which the
// kernel returns for a poll that a signal interrupts.
func (m Manager) Keep(name string, fds ...int) error {
	return m.send([]string{"FDSTORE=1", "FDPOLL=0", "FDNAME=" + name}, fds...)
}

// Forget removes everything of that name from the store.
func (m Manager) Forget(name string) error {
	return m.send([]string{"FDSTOREREMOVE=1", "FDNAME=" + name})
}

// send uses a new socket each time: a manager that was executed anew may have
// another one at the same place.
func (m Manager) send(lines []string, fds ...int) error {
	if !m.Present() {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	// Package unix takes a name that begins with @ as an abstract one.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: string(m)}); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", string(m), err)
	}
	if err := notify.SendFDs(fd, []byte(strings.Join(lines, "\n")), fds...); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", lines[0], err)
	}
	return nil
}

// Monotonic is the time of a reload, for a manager that must not mistake an
// older READY=1 for its end.
func Monotonic() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "MONOTONIC_USEC=0"
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", t.Nano()/int64(time.Microsecond))
}
