package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// treeTime bounds the end of a tree whose processes multiply faster than they
// are killed, or cannot be killed.
const treeTime = 10 * time.Second

// endTree kills every process below this one. Orphans become children of this
// process, so that it reaches one generation after the other.
func endTree() {
	for end := time.Now().Add(treeTime); time.Now().Before(end); {
		for _, pid := range children() {
			unix.Kill(pid, unix.SIGKILL)
		}
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			return
		}
		if pid == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// children lists the children of every thread of this process.
func children() (pids []int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%s/children", t.Name()))
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
