package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// ordinaryUser has no entry in passwd, and no others behind it: one is enough
// for a directory as the root of a container.
const ordinaryUser = 54321

// rootless is Podman of an ordinary user, in directories of its own. runc, for
// crun does not start where the cgroups are of both versions.
type rootless struct {
	*testing.T
	dir, conf string
}

func newRootless(t *testing.T) *rootless {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "afalg-policy-test-") // that of a test is closed to others
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	p := &rootless{T: t, dir: dir}
	for _, sub := range []string{"home", "run", "hooks", "root/bin", "root/usr", "root/tmp", "root/proc", "root/sys", "root/dev", "root/etc"} {
		must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	self, err := os.Executable()
	must(t, err)
	p.copy(self, "afalg-policy")
	p.copy(self, "root/bin/afalg-policy")
	for _, lib := range []string{"lib", "lib64"} { // of the test's program, which is not static
		must(p.T, os.Symlink("usr/"+lib, filepath.Join(dir, "root", lib)))
	}
	for _, sub := range []string{"home", "run", "root"} {
		must(t, filepath.Walk(filepath.Join(dir, sub), func(path string, _ os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, ordinaryUser, ordinaryUser)
		}))
	}
	t.Cleanup(p.stopPause)
	return p
}

func (p *rootless) copy(from, to string) {
	p.Helper()
	text, err := os.ReadFile(from)
	must(p.T, err)
	must(p.T, os.WriteFile(filepath.Join(p.dir, to), text, 0o755))
}

// stopPause ends the process by which podman keeps a user namespace.
func (p *rootless) stopPause() {
	text, err := os.ReadFile(filepath.Join(p.dir, "run/libpod/tmp/pause.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// install sets up what "install podman" does, for this user alone.
func (p *rootless) install(unconfined string) {
	p.Helper()
	policy := filepath.Join(p.dir, "policy.yaml")
	must(p.T, os.WriteFile(policy, []byte("version: 1\nname: p\ncontainers: {unconfined: "+unconfined+"}\n"), 0o644))
	program := filepath.Join(p.dir, "afalg-policy")
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s runtime --platform podman --policy %s --runtime-path /usr/sbin/runc -- \"$@\"\n", program, policy)
	must(p.T, os.WriteFile(filepath.Join(p.dir, "runc"), []byte(wrapper), 0o755))
	hook := fmt.Sprintf(`{"version": "1.0.0", "hook": {"path": %q, "args": ["afalg-policy", "hook", "createRuntime", "--platform", "podman", "--policy", %q]},
		"when": {"always": true}, "stages": ["createRuntime"]}`, program, policy)
	must(p.T, os.WriteFile(filepath.Join(p.dir, "hooks/gate.json"), []byte(hook), 0o644))
	p.conf = filepath.Join(p.dir, "containers.conf")
	must(p.T, os.WriteFile(p.conf, fmt.Appendf(nil, "[engine]\nhooks_dir = [%q]\n[engine.runtimes]\nrunc = [%q]\n", p.dir+"/hooks", p.dir+"/runc"), 0o644))
}

// run asks every route in a container.
func (p *rootless) run(options ...string) outcome {
	p.Helper()
	args := append([]string{"--cgroup-manager=cgroupfs", "--runtime=runc", "run", "--rm", "--network=none", "--pids-limit=-1", "--volume=/usr:/usr:ro"}, options...)
	cmd := exec.Command("podman", append(args, "--rootfs", p.dir+"/root", "/bin/afalg-policy", "probe")...)
	cmd.Dir = p.dir + "/home"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "XDG_RUNTIME_DIR=" + p.dir + "/run"}
	if p.conf != "" {
		cmd.Env = append(cmd.Env, "CONTAINERS_CONF="+p.conf)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser}}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	status := 0
	if err := cmd.Run(); err != nil {
		status = 1
	}
	var verdicts []string
	for line := range strings.Lines(stdout.String()) {
		if f := strings.Split(line, "\t"); len(f) > 2 {
			verdicts = append(verdicts, f[0]+" "+f[1])
		}
	}
	return outcome{strings.Join(verdicts, "\n"), stderr.String(), status}
}

// allClosed are the verdicts where no route is open. A kernel without 32-bit
// calls lacks two of them.
func allClosed(t *testing.T) string {
	t.Helper()
	compat := "closed"
	if !kerneltest.I386(t) {
		compat = "unavailable"
	}
	return "socket closed\nsocket-highbits closed\ncompat-socket " + compat + "\ncompat-socketcall " + compat +
		"\nx32-socket closed\nio_uring closed\nsocketpair closed\ninherited closed"
}

// Containers of an ordinary user are hardened and proved in the user namespace
// that they start in.
func TestLongRootlessPodman(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	p := newRootless(t)
	if got := p.run(); got.stdout == "" || strings.Contains(got.stdout, "\nsocket closed") || strings.HasPrefix(got.stdout, "socket closed") {
		t.Fatalf("without a policy: %+v", got)
	}
	p.install("refuse")
	closed := allClosed(t)
	for _, options := range [][]string{nil, {"--name=granted"}, {"--cap-add=SYS_ADMIN"}} {
		if got := p.run(options...); cmp.Diff(closed, got.stdout) != "" {
			t.Errorf("%v: %s\n%s", options, cmp.Diff(closed, got.stdout), got.stderr)
		}
	}
	for _, option := range []string{"--privileged", "--security-opt=seccomp=unconfined"} {
		if got := p.run(option); got.status == 0 || got.stdout != "" || !strings.Contains(got.stderr, "the container has no seccomp profile") {
			t.Errorf("%s: %+v", option, got)
		}
	}
	p.install("harden")
	if got := p.run("--privileged"); got.stdout != closed {
		t.Errorf("hardened: %+v", got)
	}
	// A slip does not stop this user either: what was read last is kept in the
	// user's own directory.
	must(t, os.WriteFile(filepath.Join(p.dir, "policy.yaml"), []byte("version: 1\nname: p\nslip: 1\n"), 0o644))
	if got := p.run("--privileged"); got.stdout != closed {
		t.Errorf("with a slip: %+v", got)
	}
}
