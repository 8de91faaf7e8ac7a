package kerneltest

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedUserNamespaces skips a test, or a part of one, that makes a user
// namespace where the kernel refuses that to a process in a chroot
// (kernel/user_namespace.c, current_chrooted). If it is refused for another
// reason, the test runs, and fails.
func NeedUserNamespaces(t testing.TB) {
	t.Helper()
	if !refused() {
		return
	}
	inside, err := chrooted()
	if err != nil {
		t.Fatalf("no user namespace can be made, and whether that is for a chroot cannot be told: %v", err)
	}
	if inside {
		t.Skip("the kernel makes no user namespace for a process in a chroot: a child got EPERM, " +
			"and the root directory is not that of the mount namespace; run the tests outside of the chroot")
	}
}

// NeedOwnRoot skips a test, or a part of one, about the root directory of a
// mount namespace, where this process has another: in a chroot.
func NeedOwnRoot(t testing.TB) {
	t.Helper()
	inside, err := chrooted()
	if err != nil {
		t.Fatalf("whether this is a chroot cannot be told: %v", err)
	}
	if inside {
		t.Skip("a mount namespace made here has another root directory than this process: it has entered its own, and the root changed; " +
			"run the tests outside of the chroot, or by make, which leaves it")
	}
}

// refused reports whether a child that asks for a user namespace gets EPERM.
func refused() bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return errors.Is(cmd.Run(), unix.EPERM)
}

// chrooted reports whether the root directory is another than the mount
// namespace's. Entering a namespace, even one's own, sets the root to that.
func chrooted() (bool, error) {
	type result struct {
		inside bool
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its root
		inside, err := rootChanges()
		done <- result{inside, err}
	}()
	r := <-done
	return r.inside, r.err
}

func rootChanges() (bool, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return false, fmt.Errorf("unshare the root directory: %w", err)
	}
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open the mount namespace: %w", err)
	}
	defer unix.Close(own)
	before, err := rootDirectory()
	if err != nil {
		return false, err
	}
	if err := unix.Setns(own, unix.CLONE_NEWNS); err != nil {
		return false, fmt.Errorf("enter the mount namespace: %w", err)
	}
	after, err := rootDirectory()
	return before != after, err
}

// place is a directory as a mount shows it.
type place struct{ mount, inode uint64 }

func rootDirectory() (place, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return place{}, fmt.Errorf("look at the root directory: %w", err)
	}
	return place{st.Mnt_id, st.Ino}, nil
}
