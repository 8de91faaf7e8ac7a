package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("INSTALL_TEST_ROOT"); dir != "" {
		os.Exit(dieAt(dir, os.Getenv("INSTALL_TEST_FILES"), os.Getenv("INSTALL_TEST_STEP")))
	}
	os.Exit(m.Run())
}

var sets = map[string][]File{"once": wantedOnce, "again": wantedAgain, "none": nil}

// dieAt is the child that is killed before a step.
func dieAt(dir, set, step string) int {
	last, err := strconv.Atoi(step)
	if err != nil {
		return 2
	}
	n := 0
	err = put(dir, sets[set], func(string) error {
		if n++; n > last {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// kill runs an installation that is killed at a step, and reports whether it
// was.
func kill(t *testing.T, dir, set string, step int) bool {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "INSTALL_TEST_ROOT="+dir, "INSTALL_TEST_FILES="+set, "INSTALL_TEST_STEP="+strconv.Itoa(step))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("step %d: %v\n%s", step, err, out)
	}
	return false
}

// states are the states in which an installation can start.
var states = map[string][]File{"nothing": nil, "installed": wantedOnce}

// stateOf makes a root in a state, and returns its files before and in that
// state.
func stateOf(t *testing.T, files []File) (dir string, before, now map[string]string) {
	t.Helper()
	dir = fixture(t)
	before = snapshot(t, dir)
	must(t, put(dir, files, nil))
	return dir, before, snapshot(t, dir)
}

func TestInstallUninstall(t *testing.T) {
	dir, before, _ := stateOf(t, wantedOnce)
	once := without(snapshot(t, dir))
	for name, want := range map[string]string{
		"usr/local/lib/afalg-policy/x/runc": "-rwxr-xr-x 0:0\n#!/bin/sh\nexec true\n",
		"etc/app/script":                    "-rwxr-xr-x 0:0\n#!/bin/sh\nexec true\n",
		"etc/made/here/new.conf":            "-rw-r--r-- 0:0\nnew\n",
		"etc/wants/unit":                    "Lrwxrwxrwx 0:0 /etc/unit",
		"etc/app/conf":                      "-rw-r----- 0:34" + shownXattrs + "\none\n2\nthree\n",
		"etc/made/here":                     "drwxr-xr-x 0:0",
		"var/lib/afalg-policy/installed":    "drwx------ 0:0",
	} {
		if once[name] != want {
			t.Errorf("%s: %q, want %q", name, once[name], want)
		}
	}
	for name := range once {
		if strings.Contains(name, "afalg-policy-") {
			t.Errorf("left behind: %s", name)
		}
	}
	all := snapshot(t, dir)
	must(t, put(dir, wantedOnce, nil))
	equal(t, "the same again", all, snapshot(t, dir))

	// Other files restore those that are not wanted any more.
	must(t, put(dir, wantedAgain, nil))
	again := without(snapshot(t, dir))
	fresh := fixture(t)
	must(t, put(fresh, wantedAgain, nil))
	equal(t, "other files over the first", without(snapshot(t, fresh)), again)

	must(t, put(dir, nil, nil))
	equal(t, "uninstalled", before, snapshot(t, dir))
}

// TestKilled undoes and completes an installation that was killed at any step.
func TestKilled(t *testing.T) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // hundreds of installations, each of which waits for the disk
	}
	for from, files := range states {
		for set, target := range sets {
			if from == "nothing" && target == nil {
				continue
			}
			t.Run(from+" to "+set, func(t *testing.T) {
				fresh := fixture(t)
				must(t, put(fresh, target, nil))
				want := without(snapshot(t, fresh))
				step, killed := 0, true
				for ; killed; step++ {
					dir, before, _ := stateOf(t, files)
					killed = kill(t, dir, set, step)
					must(t, put(dir, nil, nil))
					equal(t, fmt.Sprintf("uninstall after step %d", step), before, snapshot(t, dir))

					dir, _, _ = stateOf(t, files)
					killed = kill(t, dir, set, step) && killed
					must(t, put(dir, target, nil))
					equal(t, fmt.Sprintf("complete after step %d", step), want, without(snapshot(t, dir)))
				}
				if step < 8 && from+set != "installedonce" {
					t.Errorf("there were only %d steps", step)
				}
			})
		}
	}
}

// TestRollBack shows that an installation that fails at any step leaves
// everything as it was, the record too.
func TestRollBack(t *testing.T) {
	for from, files := range states {
		for set, target := range sets {
			if from == "nothing" && target == nil {
				continue
			}
			t.Run(from+" to "+set, func(t *testing.T) {
				steps := 0
				for failed := true; failed; steps++ {
					dir, _, now := stateOf(t, files)
					n := 0
					err := put(dir, target, func(step string) error {
						if n++; n > steps {
							return fmt.Errorf("no %s", step)
						}
						return nil
					})
					if failed = err != nil; failed {
						if !strings.Contains(err.Error(), "no ") || strings.Contains(err.Error(), "\n") {
							t.Errorf("step %d: %v", steps, err)
						}
						equal(t, fmt.Sprintf("after %v", err), now, snapshot(t, dir))
					}
				}
				if steps < 8 && from+set != "installedonce" {
					t.Errorf("there were only %d steps", steps)
				}
			})
		}
	}
}

// TestChangedMeanwhile shows that a change at the last moment is not lost.
func TestChangedMeanwhile(t *testing.T) {
	dir := fixture(t)
	before := snapshot(t, dir)
	err := put(dir, wantedOnce, func(step string) error {
		if step == "replace /etc/app/conf" {
			write(t, dir, "etc/app/conf", "theirs\n", 0o644)
		}
		return nil
	})
	if want := dir + "/etc/app/conf was changed just now; run this again"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	after := snapshot(t, dir)
	if !strings.HasSuffix(after["etc/app/conf"], "\ntheirs\n") {
		t.Errorf("their change is gone: %s", after["etc/app/conf"])
	}
	after["etc/app/conf"] = before["etc/app/conf"]
	equal(t, "the rest", before, after)
}

// TestRollBackFails shows that the record knows the way where going back fails
// too.
func TestRollBackFails(t *testing.T) {
	dir := fixture(t)
	before := snapshot(t, dir)
	err := put(dir, wantedOnce, func(step string) error {
		if step != "conclude" {
			return nil
		}
		must(t, os.Remove(filepath.Join(dir, "etc/app", ".conf.afalg-policy-old")))
		return errors.New("no")
	})
	want := "no\nand the changes could not be undone: replace " + dir + "/etc/app/conf: no such file or directory\n" +
		"run install or uninstall again once that is fixed: the record has the earlier files"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	must(t, put(dir, nil, nil))
	equal(t, "uninstalled after all", before, snapshot(t, dir))
}

func TestOneAtATime(t *testing.T) {
	dir := fixture(t)
	before := snapshot(t, dir)
	h, err := Open(dir)
	must(t, err)
	defer h.Close()
	unlock, err := h.Lock()
	must(t, err)
	var host *hosterr.Error
	if err := put(dir, wantedOnce, nil); !errors.Is(err, ErrBusy) || !errors.As(err, &host) {
		t.Errorf("while another is at it: %v", err)
	}
	unlock()
	equal(t, "unlocked", before, snapshot(t, dir))

	// Of many at once, each finds the lock, or a state that another one
	// completed.
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			files := wantedOnce
			if i%3 == 0 {
				files = nil
			}
			for {
				err := put(dir, files, nil)
				if errors.Is(err, ErrBusy) {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				if err != nil {
					t.Errorf("among many: %v", err)
				}
				return
			}
		})
	}
	group.Wait()
	must(t, put(dir, nil, nil))
	equal(t, "after many", before, snapshot(t, dir))
}

// smallDisk is a root on a file system of 128 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := smallFS(t, "128k")
	fill(t, dir)
	return dir
}

// TestFullDisk shows that a full disk, at whatever file, leaves everything as
// it was.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t)
	filler := filepath.Join(dir, "filler")
	fails := 0
	for free := 0; ; free++ {
		must(t, os.WriteFile(filler, nil, 0o644))
		f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		size, err := f.Seek(0, 2)
		must(t, err)
		must(t, f.Truncate(size-int64(free)*4096))
		must(t, f.Close())
		before := snapshot(t, dir)
		err = put(dir, wantedOnce, nil)
		if err == nil {
			break
		}
		fails++
		var host *hosterr.Error
		if !errors.As(err, &host) || !strings.HasSuffix(err.Error(), ": no space left on device") {
			t.Errorf("%d pages free: %v", free, err)
		}
		equal(t, fmt.Sprintf("%d pages free", free), before, snapshot(t, dir))
	}
	if fails < 4 {
		t.Errorf("it failed only %d times", fails)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t)
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	var host *hosterr.Error
	if err := put(dir, wantedOnce, nil); !errors.As(err, &host) || err.Error() != "make "+dir+"/var/lib/afalg-policy/installed: read-only file system" {
		t.Errorf("%v", err)
	}
}
