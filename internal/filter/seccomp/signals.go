package seccomp

/*
#include <signal.h>
#include <stddef.h>

static sigset_t ignored, blocked;

// The Go runtime sets a handler for each signal that it can, whatever its
// disposition, and unblocks some. This runs before it.
__attribute__((constructor)) static void note_signals(void) {
	sigemptyset(&ignored);
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	for (int n = 1; n < NSIG; n++) {
		struct sigaction a;
		if (sigaction(n, NULL, &a) == 0 && a.sa_handler == SIG_IGN)
			sigaddset(&ignored, n);
	}
}

static int was_ignored(int n) { return sigismember(&ignored, n) == 1; }

static void ignore_again(void) {
	struct sigaction a = {.sa_handler = SIG_IGN};
	for (int n = 1; n < NSIG; n++)
		if (was_ignored(n))
			sigaction(n, &a, NULL);
}

static void block_again(sigset_t *now) { pthread_sigmask(SIG_SETMASK, &blocked, now); }
static void unblock(sigset_t *now) { pthread_sigmask(SIG_SETMASK, now, NULL); }
*/
import "C"

import (
	"runtime"
	"syscall"
)

// This file is here, and not beside the code that starts programs, because
// libseccomp needs cgo, and no other package may.

const lastSignal = 64

// IgnoredAtStart lists the signals that this process was started to ignore.
func IgnoredAtStart() (list []syscall.Signal) {
	for n := 1; n <= lastSignal; n++ {
		if C.was_ignored(C.int(n)) == 1 {
			list = append(list, syscall.Signal(n))
		}
	}
	return list
}

// WithStartMask calls a function with the signal mask that this process was
// started with. Programs that the function starts inherit it.
func WithStartMask(do func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var now C.sigset_t
	C.block_again(&now)
	defer C.unblock(&now)
	do()
}

// Exec replaces this process by a program that finds the signals ignored and
// blocked that this one did. It returns only with an error.
func Exec(path string, argv, env []string) (err error) {
	C.ignore_again()
	WithStartMask(func() { err = syscall.Exec(path, argv, env) })
	return err
}
