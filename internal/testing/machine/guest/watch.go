package main

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	look = 100 * time.Millisecond
	beat = 5 * time.Second
	// busy bounds a working command to this many times its time-out.
	busy = 10
)

// watch kills a process group that takes too long, and reports whether it did.
// It returns when done closes.
func watch(group int, timeout time.Duration, alive func(), done <-chan struct{}) bool {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	start, idle, last := time.Now(), idleTime(), time.Now()
	for {
		select {
		case <-done:
			return false
		case <-ticker.C:
		}
		if idleTime()-idle > timeout || time.Since(start) > busy*timeout {
			unix.Kill(-group, unix.SIGKILL)
			<-done
			return true
		}
		if time.Since(last) > beat {
			last = time.Now()
			alive()
		}
	}
}

// ticks are the units of /proc/stat, USER_HZ of them a second.
const ticks = 100

// idleTime is for how long the processors had nothing to do, on average.
func idleTime() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	fields := strings.Fields(lines.Text()) // cpu user nice system idle …
	if len(fields) < 5 {
		return 0
	}
	idle, err := strconv.ParseInt(fields[4], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(idle) * time.Second / ticks / time.Duration(runtime.NumCPU())
}
