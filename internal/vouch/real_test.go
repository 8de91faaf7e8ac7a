package vouch

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// These tests run the platforms of this machine, as root, on stores of their
// own. No container of them runs: the hook keeps its input, and the runtime
// does so and fails.

const buildFile = `FROM scratch
COPY f /f
LABEL app=image fromimage=yes io.afalg-policy.grant=wifi nerdctl/name=web
ENV AFALG_POLICY_GRANT=aead
CMD ["/f"]
`

func buildDir(t *testing.T, dir string) string {
	t.Helper()
	put(t, dir+"/context/Dockerfile", buildFile)
	put(t, dir+"/context/f", "not a program\n")
	return dir + "/context"
}

func script(t *testing.T, path, text string) string {
	t.Helper()
	put(t, path, "#!/bin/sh\n"+text)
	chmod(t, path, 0o700)
	return path
}

func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := attempt(command...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(out)
}

func attempt(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRealPodman(t *testing.T) {
	dir := t.TempDir()
	noDefaults(t, dir)
	script(t, dir+"/keep", "cat > "+dir+"/spec.json\nexit 1\n")
	put(t, dir+"/hooks/keep.json", `{"version": "1.0.0", "hook": {"path": "`+dir+`/keep"}, "when": {"always": true}, "stages": ["precreate"]}`)
	podman := []string{"podman", "--root", dir + "/graph", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs", "--hooks-dir", dir + "/hooks"}
	call := func(args ...string) string { t.Helper(); return run(t, append(slices.Clone(podman), args...)...) }
	t.Cleanup(func() { call("rm", "--all", "--force") }) // frees their locks, which all stores share
	started := func(name, id string) plan.Container {
		t.Helper()
		if out, err := attempt(append(slices.Clone(podman), "start", name)...); err == nil {
			t.Fatalf("the container started: %s", out)
		}
		src, err := os.ReadFile(dir + "/spec.json")
		if err != nil {
			t.Fatal(err)
		}
		c, err := Container(Source{Platform: "podman", ID: id, Spec: config(t, src)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	call("build", "-q", "--annotation", "img.example/a=image", "-t", "img1", buildDir(t, dir))
	image := "sha256:" + strings.TrimPrefix(call("image", "inspect", "--format", "{{.Id}}", "img1"), "sha256:")
	manifest := call("image", "inspect", "--format", "{{.Digest}}", "img1")

	id := call("create", "--name", "first", "--annotation", "own.example/b=user", "img1")
	call("rename", "first", "web")
	for _, given := range []string{"", id} {
		c := started("web", given)
		want(t, claimedOf(c, "img.example/a"), plan.Container{
			Platform: "podman", ID: id,
			Vouched: plan.Identity{Name: "web", Images: sortedOnce([]string{image, manifest}), Annotations: map[string]string{"own.example/b": "user"}},
			Claimed: plan.Identity{Annotations: map[string]string{"img.example/a": "image"}},
			Asks:    []string{"aead"},
		})
	}
	put(t, dir+"/rootfs/f", "")
	id = call("create", "--name", "rf", "--rootfs", dir+"/rootfs", "/f")
	c := started("rf", "")
	want(t, claimedOf(c), plan.Container{Platform: "podman", ID: id, Vouched: plan.Identity{Name: "rf"}})
}

// claimedOf keeps some of the claimed annotations.
func claimedOf(c plan.Container, keys ...string) plan.Container {
	kept := map[string]string{}
	for _, k := range keys {
		kept[k] = c.Claimed.Annotations[k]
	}
	c.Claimed.Annotations = kept
	return c
}

// Docker's daemon starts a containerd of its own, which serves both tests.
func TestRealDocker(t *testing.T) {
	dir := t.TempDir()
	noDefaults(t, dir)
	// Other calls than create succeed; a step of a build is not captured.
	runtime := script(t, dir+"/keep", `bundle=
for arg; do
	[ "$last" = --bundle ] && bundle=$arg
	last=$arg
done
[ -n "$bundle" ] || exit 0
cp "$bundle/config.json" `+dir+`/spec.json
echo "$bundle" > `+dir+`/bundle
exit 1
`)
	startDocker(t, dir, runtime)
	docker := func(args ...string) string {
		t.Helper()
		return run(t, append([]string{"docker", "-H", "unix://" + dir + "/docker.sock"}, args...)...)
	}
	docker("build", "-q", "-t", "img1", buildDir(t, dir))
	image := docker("image", "inspect", "--format", "{{.Id}}", "img1")
	id := docker("create", "--name", "first", "--label", "mine=1", "--label", "app=user", "img1")
	docker("rename", "first", "web")

	started := func(platform, id string, command ...string) plan.Container {
		t.Helper()
		if out, err := attempt(command...); err == nil {
			t.Fatalf("the container started: %s", out)
		}
		src, err := os.ReadFile(dir + "/spec.json")
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := os.ReadFile(dir + "/bundle")
		if err != nil {
			t.Fatal(err)
		}
		// The shim removes the bundle when the runtime fails.
		path := strings.TrimSpace(string(bundle))
		put(t, path+"/config.json", string(src))
		got, err := Container(Source{Platform: platform, ID: id, Bundle: path, Spec: config(t, src)})
		if err != nil {
			t.Fatal(err)
		}
		try(t, os.RemoveAll(path))
		return got
	}
	labels := map[string]string{"app": "image", "fromimage": "yes", "io.afalg-policy.grant": "wifi", "nerdctl/name": "web"}
	want(t, started("docker", id, "docker", "-H", "unix://"+dir+"/docker.sock", "start", "web"), plan.Container{
		Platform: "docker", ID: id,
		Vouched: plan.Identity{Name: "web", Images: []string{image}, Labels: map[string]string{"mine": "1"}},
		Claimed: plan.Identity{Labels: labels},
		Asks:    []string{"aead", "wifi"},
	})

	tar := dir + "/img1.tar"
	docker("save", "-o", tar, "img1")
	ctr := []string{"ctr", "-a", dir + "/exec/containerd/containerd.sock", "-n"}
	for _, namespace := range []string{"tests", "k8s.io"} {
		run(t, append(slices.Clone(ctr), namespace, "images", "import", "--snapshotter", "native", tar)...)
		c := started("containerd", "web", append(slices.Clone(ctr), namespace, "run", "--snapshotter", "native", "--runc-binary", runtime,
			"--label", "app=user", "--annotation", "io.kubernetes.cri.sandbox-namespace=prod", "docker.io/library/img1:latest", "web")...)
		want(t, c, plan.Container{
			Platform: "containerd", ID: "web",
			Vouched: plan.Identity{Name: "web", Namespace: namespace},
			Claimed: plan.Identity{Annotations: map[string]string{"app": "user"}},
			Asks:    []string{"aead"},
		})
	}
}

func startDocker(t *testing.T, dir, runtime string) {
	t.Helper()
	cmd := exec.Command("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
		"--data-root="+dir+"/data", "--exec-root="+dir+"/exec", "--pidfile="+dir+"/docker.pid", "--host=unix://"+dir+"/docker.sock",
		"--config-file="+dir+"/daemon.json", "--add-runtime=keep="+runtime, "--default-runtime=keep")
	put(t, dir+"/daemon.json", "{}")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it ends its containerd, too
		<-ended
		// Where its mount is shared, it mounts that over itself, and may leave
		// the mount.
		_ = unix.Unmount(dir+"/data", unix.MNT_DETACH)
		if t.Failed() {
			t.Logf("dockerd: %s", log.String())
		}
	})
	for {
		out, err := attempt("docker", "-H", "unix://"+dir+"/docker.sock", "info", "--format", "{{.DockerRootDir}}")
		if err == nil && strings.TrimSpace(out) == filepath.Clean(dir+"/data") {
			return
		}
		select {
		case <-ended:
			t.Fatalf("dockerd has ended: %v: %s", err, out)
		case <-time.After(100 * time.Millisecond): // it starts
		}
	}
}
