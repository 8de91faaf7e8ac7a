package host

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Moment is a point in time that no change of the clock moves.
type Moment struct {
	Boot   string        `json:"boot"`   // /proc/sys/kernel/random/boot_id
	Uptime time.Duration `json:"uptime"` // ns since boot, sleep included
}

// Now returns the present moment.
func Now() Moment {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // matches no boot: every process counts as younger
	}
	return Moment{strings.TrimSpace(string(boot)), uptime()}
}

func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
