package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownRoot gives the tests a mount namespace whose root is the root directory.
// In a chroot, where the two differ, the kernel makes no user namespace
// (kernel/user_namespace.c, current_chrooted) and moves no root, and many tests
// need both. Nothing changes outside. It takes root; without root, tests skip
// the parts that they then cannot do.
func ownRoot() error {
	if os.Geteuid() != 0 {
		return nil
	}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace, or becomes the program
		ended <- startInRoot()
	}()
	return <-ended
}

func startInRoot() error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	chrooted, err := enterRoot()
	if err != nil || !chrooted {
		return err
	}
	if err := unix.Chdir(wd); err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// enterRoot makes the root directory that of a new mount namespace of the
// thread, and reports whether it was another one.
func enterRoot() (chrooted bool, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return false, fmt.Errorf("make a mount namespace: %w", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(root)
	namespace, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(namespace)
	// Entering a mount namespace, even one's own, sets the root to its root.
	if err := unix.Setns(namespace, unix.CLONE_NEWNS); err != nil {
		return false, fmt.Errorf("enter the mount namespace: %w", err)
	}
	if same, err := isRoot(root); err != nil || same {
		return false, err
	}
	return true, makeRoot(root)
}

// isRoot reports whether a directory is the root directory.
func isRoot(dir int) (bool, error) {
	var here, there unix.Statx_t
	err := errors.Join(unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &here),
		unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_INO|unix.STATX_MNT_ID, &there))
	return here.Mnt_id == there.Mnt_id && here.Ino == there.Ino, err
}

// makeRoot makes a directory, with all mounts in it, the root of the namespace.
func makeRoot(dir int) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	tree, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone the root directory: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the root directory: %w", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make it the root: %w", err)
	}
	// The old root lies on the new one.
	return unix.Unmount(".", unix.MNT_DETACH)
}
