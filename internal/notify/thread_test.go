package notify_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// identity returns a thread's users and groups from its status.
func identity(t *testing.T, tid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	if err != nil {
		t.Error(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		for _, key := range []string{"Uid:", "Gid:", "Groups:"} {
			if value, ok := strings.CutPrefix(line, key); ok {
				found = append(found, strings.Join(strings.Fields(value), " "))
			}
		}
	}
	return strings.Join(found, "; ")
}

// onThread runs f on a thread that nobody uses afterwards, other than the main
// one: the status of the process is that thread's.
func onThread(f func(tid int)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f(unix.Gettid())
	}()
	<-done
}

func TestSetThreadIDs(t *testing.T) {
	root, before := os.Geteuid() == 0, identity(t, os.Getpid())
	for _, test := range []struct {
		groups []uint32
		want   string
	}{
		{[]uint32{12, 34, 65534}, "1234 1234 1234 1234; 4321 4321 4321 4321; 12 34 65534"},
		{nil, "1234 1234 1234 1234; 4321 4321 4321 4321; "},
	} {
		onThread(func(tid int) {
			err := notify.SetThreadIDs(1234, 4321, test.groups)
			got := identity(t, tid)
			switch {
			case !root && (err != unix.EPERM || got != before):
				t.Errorf("an ordinary user became %s, %v", got, err)
			case root && (err != nil || got != test.want):
				t.Errorf("the thread is %s, %v; want %s", got, err, test.want)
			}
			if got := identity(t, os.Getpid()); got != before {
				t.Errorf("the process was %s, and is %s", before, got)
			}
		})
	}
	if root {
		onThread(func(tid int) {
			if err := notify.SetThreadIDs(-1, -1, nil); err != nil || !strings.HasPrefix(identity(t, tid), before[:7]) {
				t.Errorf("-1 leaves an id alone: %s, %v", identity(t, tid), err)
			}
			if err := notify.SetThreadIDs(0, 0, make([]uint32, 1<<17)); err != unix.EINVAL {
				t.Errorf("more groups than there can be: %v", err)
			}
		})
	}
}
