package agent

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

// manager is the address of the service manager, as sd_notify(3) describes it;
// "" if there is none.
type manager string

// managerTime bounds how long a manager that does not read can delay us.
const managerTime = 10 * time.Second

// findManager takes the variables for this process out of its environment.
func findManager() (manager, time.Duration, error) {
	address := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if address != "" && address[0] != '/' && address[0] != '@' {
		return "", 0, hosterr.Errorf("NOTIFY_SOCKET is %q: only a path and an abstract name (@) are known", address)
	}
	watch, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return "", 0, hosterr.Errorf("read what the watchdog wants: %w", err)
	}
	return manager(address), watch, nil
}

func (m manager) present() bool { return m != "" }

// tell sends assignments, if there is a manager.
func (m manager) tell(lines ...string) error { return m.send(lines) }

// keep puts descriptors into the store, all under one name. The manager must
// not poll them (FDPOLL): it would drop a listener on EPOLLERR, which the
// kernel returns for a poll that a signal interrupts.
func (m manager) keep(name string, fds ...int) error {
	return m.send([]string{"FDSTORE=1", "FDPOLL=0", "FDNAME=" + name}, fds...)
}

// forget removes everything of that name from the store.
func (m manager) forget(name string) error {
	return m.send([]string{"FDSTOREREMOVE=1", "FDNAME=" + name})
}

// send uses a new socket each time: a manager that was executed anew may have
// another one at the same place.
func (m manager) send(lines []string, fds ...int) error {
	if !m.present() {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(managerTime))
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

// monotonic is the time of a reload, for a manager that must not mistake an
// older READY=1 for its end.
func monotonic() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "MONOTONIC_USEC=0"
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", t.Nano()/int64(time.Microsecond))
}
