package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// The test binary is the program as well, under its name: see TestMain.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: path, Args: append([]string{"afalg-policy"}, args...), Env: os.Environ()}
}

// agentProcess is an agent of the test.
type agentProcess struct {
	t      *testing.T
	dir    string
	socket string
	policy string
	log    string
	brief  string // see short
	cmd    *exec.Cmd
	ended  chan struct{}
}

const agentPolicy = `version: 1
name: test
allow:
  - {rule: one, users: [root], algorithms: {hash: [sha1]}}
`

func startAgent(t *testing.T, flags ...string) *agentProcess {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: the agent reads the memory of others")
	}
	dir := t.TempDir()
	a := &agentProcess{t: t, dir: dir, socket: filepath.Join(dir, "s"), policy: filepath.Join(dir, "policy.yaml"), log: filepath.Join(dir, "log")}
	a.write(agentPolicy)
	a.run(flags...)
	return a
}

func (a *agentProcess) write(policy string) {
	a.t.Helper()
	if err := os.WriteFile(a.policy, []byte(policy), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agentProcess) run(flags ...string) {
	a.t.Helper()
	out, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		a.t.Fatal(err)
	}
	defer out.Close()
	a.cmd = program(a.t, append([]string{"agent", a.policy, "--listen", a.socket}, flags...)...)
	a.cmd.Stderr, a.cmd.Stdout = out, out
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	ended := make(chan struct{})
	cmd := a.cmd
	a.ended = ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	a.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	a.expect("serving on " + a.socket)
}

func (a *agentProcess) told() string {
	a.t.Helper()
	text, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// expect waits for a pattern in what the agent told.
func (a *agentProcess) expect(pattern string) {
	a.t.Helper()
	want := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if want.MatchString(a.told()) {
			return
		}
	}
	a.t.Fatalf("the agent did not tell %s:\n%s", pattern, a.told())
}

func (a *agentProcess) end(s syscall.Signal) int {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
	<-a.ended
	return a.cmd.ProcessState.ExitCode()
}

// caller is a client for containers: for each line that it reads it asks for a
// socket of AF_ALG, and binds a Unix socket with an address of that size.
const caller = `#include <errno.h>
#include <linux/if_alg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
	char line[64];
	setvbuf(stdout, 0, _IONBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
		printf("socket %s\n", fd < 0 ? strerrorname_np(errno) : "ok");
		close(fd);
		struct sockaddr_alg a = {.salg_family = AF_ALG};
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		printf("bind %s\n", bind(fd, (void *)&a, sizeof a) ? strerrorname_np(errno) : "ok");
		close(fd);
	}
}
`

// bundle makes a bundle whose command is the client, with a profile from
// generate.
func (a *agentProcess) bundle(name, base string, grants ...string) string {
	a.t.Helper()
	dir := filepath.Join(a.dir, name)
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			a.t.Fatal(err)
		}
	}
	a.compile(filepath.Join(root, "caller"))
	args := []string{"generate", "seccomp", a.policy, "--base", base, "--broker", a.socket}
	for _, g := range grants {
		args = append(args, "--grant", g)
	}
	profile, err := program(a.t, args...).Output()
	if err != nil {
		a.t.Fatal(explain(err))
	}
	spec := exec.Command("runc", "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		a.t.Fatalf("runc spec: %v: %s", err, out)
	}
	a.patch(filepath.Join(dir, "config.json"), profile)
	return dir
}

func explain(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("%v: %s", err, exit.Stderr)
	}
	return err.Error()
}

func (a *agentProcess) compile(path string) {
	a.t.Helper()
	cc := exec.Command("gcc", "-D_GNU_SOURCE", "-O1", "-static", "-x", "c", "-o", path, "-")
	cc.Stdin = strings.NewReader(caller)
	if out, err := cc.CombinedOutput(); err != nil {
		a.t.Fatalf("gcc: %v: %s", err, out)
	}
}

// patch makes a config for the client. Without resources: some hosts let nobody
// load programs for devices.
func (a *agentProcess) patch(path string, profile []byte) {
	a.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		a.t.Fatal(err)
	}
	process, linux := c["process"].(map[string]any), c["linux"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/caller"}
	delete(process, "rlimits")
	delete(linux, "resources")
	linux["seccomp"] = json.RawMessage(profile)
	if text, err = json.Marshal(c); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// container is one that runs; it makes its calls when it is asked to.
type container struct {
	t   *testing.T
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *os.File
	err bytes.Buffer
}

// begin runs a command that runs a container.
func (a *agentProcess) begin(args ...string) *container {
	a.t.Helper()
	c := &container{t: a.t, cmd: exec.Command(args[0], args[1:]...)}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		a.t.Fatal(err)
	}
	c.in, c.out, c.cmd.Stdout, c.cmd.Stderr = in, out, w, &c.err
	if err := c.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	w.Close()
	a.t.Cleanup(func() {
		in.Close() // the client ends, and the container with it
		if err := c.cmd.Wait(); err != nil {
			a.t.Errorf("%v: %v: %s", args, err, &c.err)
		}
		out.Close()
	})
	return c
}

// ask has the client make its calls.
func (c *container) ask(want string) {
	c.t.Helper()
	if _, err := c.in.Write([]byte("go\n")); err != nil {
		c.t.Fatalf("%v: %s", err, &c.err)
	}
	buf, got := make([]byte, 256), ""
	for strings.Count(got, "\n") < 2 {
		c.out.SetReadDeadline(time.Now().Add(patience))
		n, err := c.out.Read(buf)
		if err != nil {
			c.t.Fatalf("after %q: %v: %s", got, err, &c.err)
		}
		got += string(buf[:n])
	}
	if got = strings.ReplaceAll(strings.TrimSpace(got), "\n", ", "); got != want {
		c.t.Errorf("%s, want %s", got, want)
	}
}

const (
	denied = "socket EAFNOSUPPORT, bind EINVAL"
	dead   = "socket ENOSYS, bind ENOSYS"
)

// runtimes are those whose containers are tried.
var runtimes = []struct {
	name string
	run  func(a *agentProcess, id, bundle string) []string
}{
	{"runc", func(a *agentProcess, id, bundle string) []string {
		return []string{"runc", "--root", a.dir + "/runc", "run", "--bundle", bundle, id}
	}},
	{"crun", func(a *agentProcess, id, bundle string) []string {
		return unified("crun", "--root", a.dir+"/crun", "run", "--bundle", bundle, id)
	}},
	{"podman", func(a *agentProcess, id, bundle string) []string {
		return unified("podman", "--root", a.dir+"/storage", "--runroot", a.short(), "--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--runtime", "crun", "run", "--rm", "-i", "--name", id, "--cgroups", "disabled",
			"--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512",
			"--security-opt", "seccomp="+bundle+"/seccomp.json", "--rootfs", bundle+"/rootfs", "/caller")
	}},
}

// short makes a directory with a name as short as podman wants it.
func (a *agentProcess) short() string {
	a.t.Helper()
	if a.brief == "" {
		var err error
		if a.brief, err = os.MkdirTemp("/tmp", "podman"); err != nil {
			a.t.Fatal(err)
		}
		a.t.Cleanup(func() { os.RemoveAll(a.brief) })
	}
	return a.brief
}

// unified runs a command where the hierarchy of cgroups is one that crun
// supports, whatever the host's is.
func unified(command ...string) []string {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return command
	}
	const mount = `umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"`
	return append([]string{"unshare", "--mount", "sh", "-c", mount, "sh"}, command...)
}

// Real containers: one with a grant and one without, side by side; what they
// get; what is told of it; a reload; and the death of the agent.
func TestAgentAndRuntimes(t *testing.T) {
	if testing.Short() { // they take ten seconds
		return
	}
	kerneltest.NeedOwnRoot(t) // else the agent sees their paths from the outside
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) {
			a := startAgent(t)
			granted, bare := a.bundle("granted", "none", "one"), a.bundle("bare", "docker")
			for _, b := range []string{granted, bare} {
				a.podmanProfile(b)
			}
			id := strings.ToLower(rt.name) + fmt.Sprint(os.Getpid())
			g := a.begin(rt.run(a, id+"g", granted)...)
			b := a.begin(rt.run(a, id+"b", bare)...)
			a.expect(`container "[^"]+", process \d+: granted one\n`)
			a.expect(`container "[^"]+", process \d+: granted nothing\n`)
			b.ask(denied)
			a.expect(`"call":"socket","pid":\d+,.*"executable":"/caller".*"reason":"the workload holds no grant","errno":"EAFNOSUPPORT"`)
			g.ask(a.allowed())
			a.write("version: 3\n")
			a.cmd.Process.Signal(unix.SIGHUP)
			a.expect("the new policy was refused, and the old one kept")
			g.ask(a.allowed())
			a.write(strings.ReplaceAll(agentPolicy, "one", "two"))
			a.cmd.Process.Signal(unix.SIGHUP)
			a.expect("the policy was read again, and holds for 2 containers")
			g.ask(denied)
			a.expect("the policy has no rule one, which is ignored")
			a.end(unix.SIGKILL)
			g.ask(dead)
			b.ask(dead)
		})
	}
}

// allowed is what the grant brings: on a kernel without AF_ALG what the kernel
// says, which has its own line.
func (a *agentProcess) allowed() string {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		unix.Close(fd)
		return "socket ok, bind EINVAL"
	}
	a.t.Cleanup(func() { a.expect(`"reason":"the kernel gave no socket: `) })
	return denied
}

// podmanProfile writes the profile of a bundle where podman finds it.
func (a *agentProcess) podmanProfile(bundle string) {
	a.t.Helper()
	var c struct {
		Linux struct{ Seccomp json.RawMessage }
	}
	text, err := os.ReadFile(bundle + "/config.json")
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err == nil {
		err = os.WriteFile(bundle+"/seccomp.json", c.Linux.Seccomp, 0o644)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// A process that is put into a container later has its own filter and listener.
func TestAgentAndExec(t *testing.T) {
	if testing.Short() {
		return
	}
	kerneltest.NeedOwnRoot(t)
	a := startAgent(t)
	id := "exec" + fmt.Sprint(os.Getpid())
	first := a.begin("runc", "--root", a.dir+"/runc", "run", "--bundle", a.bundle("b", "none"), id)
	first.ask(denied)
	t.Run("second", func(t *testing.T) {
		inner := *a
		inner.t = t
		inner.begin("runc", "--root", a.dir+"/runc", "exec", id, "/caller").ask(denied)
	})
	a.expect(`(?s)(container "` + id + `", process \d+: granted nothing\n.*){2}container "` + id + `", process \d+: ended`)
	first.ask(denied)
}

// A container does not start without the agent.
func TestNoAgentNoContainer(t *testing.T) {
	if testing.Short() {
		return
	}
	a := startAgent(t)
	bundle := a.bundle("b", "none", "one")
	if status := a.end(unix.SIGTERM); status != exitYes {
		t.Errorf("status %d", status)
	}
	out, err := exec.Command("runc", "--root", a.dir+"/runc", "run", "--bundle", bundle, "none"+fmt.Sprint(os.Getpid())).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "seccomp agent") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAgentStatus(t *testing.T) {
	a := startAgent(t)
	second := program(t, "agent", a.policy, "--listen", a.socket)
	out, err := second.CombinedOutput()
	if statusOf(err) != "3" || !strings.Contains(string(out), "somebody listens there already") {
		t.Errorf("a second agent: %v: %s", err, out)
	}
	if status := a.end(unix.SIGINT); status != exitYes {
		t.Errorf("status %d:\n%s", status, a.told())
	}
	if _, err := os.Lstat(a.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestAgentMetricsAndLog(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, "--metrics", "unix:"+dir+"/m", "--log", dir+"/decisions", "--learn", dir+"/learned.yaml", "--deny-type", "aead")
	a.expect("WARNING: learning: NOTHING IS ENFORCED")
	if status := a.end(unix.SIGTERM); status != exitYes {
		t.Errorf("status %d:\n%s", status, a.told())
	}
	if _, err := os.Stat(dir + "/learned.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/decisions"); err != nil {
		t.Error(err)
	}
}

// The units are ones that systemd takes without a word, and hardened.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{"afalg-policy-agent.service", "afalg-policy-agent.socket"} {
		text, err := os.ReadFile(filepath.Join(repository, "dist", name))
		if err != nil {
			t.Fatal(err)
		}
		installed := strings.ReplaceAll(string(text), "/usr/local/bin/afalg-policy ", binary+" ")
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(installed), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
		if m := regexp.MustCompile(`(?m)^ExecStart=\S+ (.*)$`).FindStringSubmatch(string(text)); m != nil {
			if err := accepts(strings.Fields(m[1])); err != nil {
				t.Errorf("%s: %v", m[0], err)
			}
		}
	}
	// It exits with 0 where it ignores a setting.
	out, err := exec.Command("systemd-analyze", append([]string{"verify"}, paths...)...).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=31", paths[0]).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v: %s", err, out)
	}
}
