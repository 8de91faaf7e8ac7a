package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const inChroot = "CHECK_IN_CHROOT"

// TestMain is also the program that TestOwnRoot starts in a chroot.
func TestMain(m *testing.M) {
	if os.Getenv(inChroot) == "" {
		os.Exit(m.Run())
	}
	if err := ownRoot(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out, err := exec.Command("unshare", "-Ur", "pwd").CombinedOutput()
	fmt.Printf("%s%v", out, err)
	os.Exit(0)
}

// In a chroot no user namespace can be made; with a root of its own, one can.
// The test tries both kinds of chroot: of a mount, and of a directory in one.
func TestOwnRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes a chroot")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"a mount": `mount --rbind / "$0"; cd "$0"; exec chroot "$0" "$@"`,
		"a directory": `mount -t tmpfs none "$0"; mkdir "$0/root"; cd "$0/root"
			for d in usr lib lib64 proc dev; do mkdir $d; mount --rbind /$d $d; done
			cp "$1" self; exec chroot . /self`,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "sh", "-euc", script, t.TempDir(), self)
			cmd.Env = append(os.Environ(), inChroot+"=yes")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "<nil>") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
