//go:build vm

package box

import (
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
)

func TestBox(t *testing.T) {
	b := Start(t)
	t.Logf("up after %v", b.Booted)
	if got := b.Output(t, "cat", "/proc/1/comm"); got != "systemd" {
		t.Errorf("process 1 is %s", got)
	}
	for what, want := range map[string]string{
		"stat -f -c %T /sys/fs/cgroup":      "cgroup2fs",
		"ls /sys/class/net":                 "lo",
		"hostname":                          "box",
		"grep Seccomp: /proc/self/status":   "Seccomp:\t0",
		"systemctl is-active vmtest.target": "active",
		"stat -c %F /dev/fuse":              "character special file",
	} {
		if got := b.Output(t, "sh", "-c", what); got != want {
			t.Errorf("%s: %s", what, got)
		}
	}
	r := b.Command(t, machine.Command{Args: []string{"sh", "-c", "cat; echo bad >&2; sleep 1000 & wait"}, Stdin: []byte("in"), Timeout: 2 * time.Second})
	if string(r.Stdout) != "in" || string(r.Stderr) != "bad\n" || !r.TimedOut {
		t.Errorf("%+v", r)
	}
	for _, runtime := range machine.Runtimes() {
		c := machine.Container{Runtime: runtime, Rootfs: b.HostRoot(t), Args: []string{"cat", "/proc/1/comm"}}
		if r := b.Container(t, c); string(r.Stdout) != "cat\n" {
			t.Errorf("%s: exit status %d\n%s%s", runtime, r.Exit, r.Stdout, r.Stderr)
		}
	}
}

// Units of two boxes do not see each other.
func TestBoxesApart(t *testing.T) {
	a, b := Start(t), Start(t)
	a.WriteFile(t, "/etc/box-test", []byte("a"), 0o644)
	a.Output(t, "systemd-run", "--unit=box-test", "sleep", "1000")
	if got := a.Output(t, "systemctl", "is-active", "box-test"); got != "active" {
		t.Errorf("the unit is %s", got)
	}
	if r := b.Run(t, "systemctl", "is-active", "box-test"); r.Exit == 0 {
		t.Error("the other box has the unit")
	}
	if r := b.Run(t, "cat", "/etc/box-test"); r.Exit == 0 {
		t.Error("the other box has the file")
	}
}
