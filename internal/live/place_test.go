package live

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestContainerOf(t *testing.T) {
	id := strings.Repeat("0123abcd", 8)
	for cgroups, want := range map[string]string{
		"0::/system.slice/docker-" + id + ".scope\n":                                        "docker",
		"0::/docker/" + id + "\n":                                                           "docker",
		"0::/machine.slice/libpod-" + id + ".scope/container\n":                             "podman",
		"0::/user.slice/user-1.slice/user@1.service/user.slice/libpod-" + id + ".scope\n":   "podman",
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n":          "containerd",
		"0::/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope\n":                    "crio",
		"12:pids:/kubepods/besteffort/pod1/" + id + "\n0::/\n":                              "",
		"0::/system.slice/docker-" + id + ".scope/docker-" + strings.Repeat("f", 64) + "\n": "docker",
	} {
		if got, engine := ContainerOf(cgroups); got != id || engine != want {
			t.Errorf("%s: %q of %q, want one of %q", cgroups, got, engine, want)
		}
	}
	for _, cgroups := range []string{"", "0::/\n", "0::/system.slice/cron.service\n", "0::/system.slice/docker.service\n", "0::/docker/short\n", "junk\n"} {
		if id, _ := ContainerOf(cgroups); id != "" {
			t.Errorf("%s: %s", cgroups, id)
		}
	}
}

// A process in another PID namespace, and one whose path is another file on the
// host, do not count as the host's.
func TestPlaceOf(t *testing.T) {
	own := PlaceOf(os.Getpid())
	program, err := os.Executable()
	if err != nil || !own.SamePIDs || own.Binary != program || own.Cgroups == "" {
		t.Errorf("%+v, %v", own, err)
	}
	if gone := PlaceOf(1 << 30); !gone.Gone || gone.SamePIDs || gone.Binary != "" {
		t.Errorf("%+v", gone)
	}
	cmd := exec.Command("sh", "-c", `mount -t tmpfs none /mnt && cp /bin/sleep /mnt/sleep && mount --bind /mnt/sleep /bin/true && echo && exec /bin/true 100`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// The shell executes the program right after it wrote.
	for {
		path, err := os.Readlink(procPath(cmd.Process.Pid) + "/exe")
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/true") {
			break
		}
	}
	if other := PlaceOf(cmd.Process.Pid); other.SamePIDs || other.Binary != "" {
		t.Errorf("%+v", other)
	}
}
