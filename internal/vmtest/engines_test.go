//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/probe"
)

// engineName runs containers of a name each; its images never leave the guest.
type engineName struct {
	name string
	// prepare makes the root file system known to it, and returns what names
	// it on the command line of run.
	prepare func(t *testing.T, vm *VM, root string) []string
}

var engineNames = []engineName{
	{"podman", func(t *testing.T, vm *VM, root string) []string {
		// What the host's podman keeps is not this one's.
		vm.Output(t, "rm", "-rf", "/var/lib/containers", "/run/containers", "/run/libpod")
		vm.WriteFile(t, "/etc/containers/storage.conf", []byte(podmanStorage), 0o644)
		return []string{"run", "--rootfs", root}
	}},
	{"docker", func(t *testing.T, vm *VM, root string) []string {
		startDocker(t, vm)
		vm.Output(t, "sh", "-c", fmt.Sprintf("tar -C %s -c . | docker import - probed", root))
		return []string{"run", "probed"}
	}},
}

// podmanStorage is a driver that works on an overlay.
const podmanStorage = `[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
`

// testEngines starts containers as people do: by podman and by docker, with
// the profile in the format that keeps its conditions. The kernel is asked from
// inside, and verify is asked about the container from outside.
func testEngines(t *testing.T, vm *VM) {
	afalgPolicy := program(t)
	root := vm.Rootfs(t, map[string]string{"afalg-policy": afalgPolicy, "busybox": "/bin/busybox"})
	for engine, base := range map[string]string{"podman": podmanBase, "docker": "docker"} {
		profile := generate(t, "seccomp", "builtin:baseline", "--base", base, "--format", "docker")
		vm.WriteFile(t, "/tmp/"+engine+".json", profile, 0o644)
	}
	for _, e := range engineNames {
		t.Run(e.name, func(t *testing.T) {
			run := append([]string{e.name}, e.prepare(t, vm, root)...)
			for _, seccomp := range []string{"", "/tmp/" + e.name + ".json"} {
				testEngine(t, vm, e.name, run, seccomp)
			}
		})
	}
}

// testEngine runs one container under the engine's own profile, or under a
// hardened one, which is closed by every account.
func testEngine(t *testing.T, vm *VM, engine string, run []string, seccomp string) {
	closed := seccomp != ""
	name := fmt.Sprintf("%s-%v", engine, closed)
	options := []string{"--detach", "--network=none", "--name=" + name}
	if closed {
		options = append(options, "--security-opt=seccomp="+seccomp)
	}
	args := inside(run, options, "/busybox", "sleep", "600")
	if r := vm.Command(t, Command{Args: args, Timeout: 4 * time.Minute}); r.Exit != 0 {
		t.Fatalf("%v: exit status %d\n%s", args, r.Exit, r.Stderr)
	}
	r := vm.Run(t, program(t), "verify", "--json", "--container", name)
	var verified report
	if err := json.Unmarshal(r.Stdout, &verified); err != nil {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	if verified.Closed != closed {
		t.Errorf("%s: verify says closed %v, open: %s", name, verified.Closed, verified.openRoutes())
	}
	if want := "container " + name + " of " + engine; len(verified.Filters) != 1 || !strings.HasPrefix(verified.Filters[0].Name, want) {
		t.Errorf("%s: verify asked %+v, want %s…", name, verified.Filters, want)
	}
	asked := vm.Command(t, Command{Args: []string{engine, "exec", name, "/afalg-policy", "probe", "--json"}, Timeout: 4 * time.Minute})
	var probed probe.Report
	if err := json.Unmarshal(asked.Stdout, &probed); err != nil {
		t.Fatalf("%v\n%s%s", err, asked.Stdout, asked.Stderr)
	}
	if probed.Open == closed {
		t.Errorf("%s: the kernel says open %v: %+v", name, probed.Open, probed.Routes)
	}
}

// inside puts options behind "run", and the command behind the image.
func inside(run, options []string, command ...string) []string {
	for i, word := range run {
		if word == "run" {
			args := append(append(run[:i+1:i+1], options...), run[i+1:]...)
			return append(args, command...)
		}
	}
	return nil
}

// startDocker starts a daemon that touches no network.
func startDocker(t *testing.T, vm *VM) {
	t.Helper()
	vm.Output(t, "sh", "-c", `dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs --data-root=/run/docker-data >/tmp/dockerd.log 2>&1 </dev/null &`)
	t.Cleanup(func() { // t.Context has ended
		if r, err := vm.Do(context.Background(), Command{Args: []string{"sh", "-c", "kill $(cat /run/docker.pid)"}}); err != nil || r.Exit != 0 {
			t.Errorf("stopping dockerd: %v\n%s", err, r.Stderr)
		}
	})
	wait := "for i in $(seq 120); do docker version >/dev/null 2>&1 && exit 0; sleep 1; done; tail -n 20 /tmp/dockerd.log; exit 1"
	if r := vm.Command(t, Command{Args: []string{"sh", "-c", wait}, Timeout: 4 * time.Minute}); r.Exit != 0 {
		t.Fatalf("dockerd does not answer\n%s", r.Stdout)
	}
}
