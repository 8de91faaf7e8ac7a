package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// TestMain serves as the program that other users run.
func TestMain(m *testing.M) {
	if socket := os.Getenv("HEARD"); socket != "" {
		fmt.Print(heard(socket))
		return
	}
	os.Exit(m.Run())
}

// Only the host's root, and the agent's own user, are heard.
func TestHeard(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	socket := func(uid int) string {
		path := filepath.Join(dir, fmt.Sprint(uid))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		return path
	}
	user := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	rootless := &syscall.SysProcAttr{
		Credential: &syscall.Credential{}, Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
	}
	for _, tt := range []struct {
		name   string
		who    *syscall.SysProcAttr
		socket string
		want   string
	}{
		{"root, root's", nil, socket(0), "true"},
		{"root, a user's", nil, socket(1001), "true"},
		{"user, root's", user, socket(0), "false"},
		{"user, his own", user, socket(1000), "true"},
		{"user, nobody's", user, filepath.Join(dir, "none"), "true"}, // it is down
		{"rootless, root's", rootless, socket(0), "false"},
		{"rootless, his own", rootless, socket(1000), "true"},
		{"rootless, another's", rootless, socket(1001), "false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.who == rootless {
				kerneltest.NeedUserNamespaces(t)
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.SysProcAttr = tt.who
			cmd.Env = []string{"HEARD=" + tt.socket}
			cmd.Dir = "/"
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != tt.want {
				t.Errorf("%s, %v; want %s", out, err, tt.want)
			}
		})
	}
}
