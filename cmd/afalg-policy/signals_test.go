package main

import (
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// startedWith starts a command whose parent ignores some signals, and blocks
// others, and returns what it prints.
func startedWith(t *testing.T, ignored string, blocked []syscall.Signal, command ...string) string {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `trap "" ` + ignored + `; exec "$@"`, "-"}, command...)...)
	var errors strings.Builder
	cmd.Stderr = &errors
	var out []byte
	var err error
	done := make(chan struct{})
	go func() { // its thread ends with it, and the mask too
		defer close(done)
		runtime.LockOSThread()
		var mask unix.Sigset_t
		for _, n := range blocked {
			mask.Val[(n-1)/64] |= 1 << ((n - 1) % 64)
		}
		if err = unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil); err == nil {
			out, err = cmd.Output()
		}
	}()
	<-done
	if err != nil {
		t.Fatalf("%q: %v: %s", command, err, errors.String())
	}
	return string(out)
}

// A program that ours becomes or starts ignores and blocks the signals that ours
// was started with. The Go runtime changes each of them.
func TestKeepsSignals(t *testing.T) {
	asks := []string{"grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"}
	blocked := []syscall.Signal{unix.SIGTERM, unix.SIGUSR2, unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, 40}
	for name, ignored := range map[string]string{
		"those of nohup and of services":     "HUP PIPE",
		"those of a job in the background":   "INT QUIT TTOU TTIN TSTP",
		"those that a program wants":         "USR1 USR2 ALRM TERM WINCH IO VTALRM XCPU PWR",
		"none":                               "''",
		"those that only real-time uses are": "34 50 64",
	} {
		want := startedWith(t, ignored, blocked, asks...)
		if strings.Count(want, "\n") != 2 || name != "none" && strings.Contains(want, "SigIgn:\t0000000000000000") {
			t.Fatalf("control: %s", want)
		}
		wrapped := startedWith(t, ignored, blocked, append([]string{"afalg-policy", "runtime", "--runtime-path", "grep", "--"}, asks[1:]...)...)
		if d := cmp.Diff(want, wrapped); d != "" {
			t.Errorf("%s: -directly +through the wrapper\n%s", name, d)
		}
		run := startedWith(t, ignored, blocked, underRun(asks...)...)
		if d := cmp.Diff(want, run); d != "" {
			t.Errorf("%s: -directly +under run\n%s", name, d)
		}
	}
	// Only the wrapper keeps these: run has to hear of children of its own.
	const others = "CHLD URG PROF ILL FPE BUS SEGV TRAP SYS"
	want := startedWith(t, others, blocked, asks...)
	wrapped := startedWith(t, others, blocked, append([]string{"afalg-policy", "runtime", "--runtime-path", "grep", "--"}, asks[1:]...)...)
	if d := cmp.Diff(want, wrapped); d != "" {
		t.Errorf("%s: -directly +through the wrapper\n%s", others, d)
	}
}
