package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// runDocker starts a daemon with the runtimes afalg-policy and other besides
// runc. It returns the command line of a client.
func runDocker(t *testing.T, more ...string) (client []string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "docker") // socket paths have to be short
	must(t, err)
	var log bytes.Buffer
	d := exec.Command("dockerd", append(more, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
		"--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "--host", "unix://"+dir+"/sock",
		"--add-runtime", dockerName+"=/usr/sbin/runc", "--add-runtime", "other=/usr/bin/crun")...)
	d.Stdout, d.Stderr = &log, &log
	d.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	must(t, d.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.Wait() }()
	t.Cleanup(func() {
		if err := d.Process.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			must(t, err)
		}
		<-ended
		must(t, os.RemoveAll(dir))
	})
	client = []string{"--host", "unix://" + dir + "/sock"}
	for {
		_, err := ask(t.Context(), "docker", append(client, "version")...)
		if err == nil {
			return client
		}
		select {
		case <-ended:
			t.Fatalf("%v\n%s", err, log.String())
		case <-time.After(100 * time.Millisecond): // it starts
		}
	}
}

// TestPermitsRings asks which profiles lose io_uring by hardening.
func TestPermitsRings(t *testing.T) {
	for version, want := range map[string]bool{"20.10.24": true, "24.0.9": true, "25.0.5": false, "29.7.2": false} {
		base, _, err := profile.DockerOf(version)
		must(t, err)
		if permitsRings(base) != want {
			t.Errorf("Docker %s: %v", version, !want)
		}
	}
}

// TestDockerOtherRuntimes shows that a container keeps the runtime with which
// it was made.
func TestDockerOtherRuntimes(t *testing.T) {
	client := runDocker(t)
	docker := func(args ...string) { t.Helper(); output(t, "docker", append(client, args...)...) }
	reaching := []string{dockerName}
	expect := func(want string) {
		t.Helper()
		if got := errorText(otherRuntimes(t.Context(), reaching, client...)); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	expect("no error") // there is no container
	image := filepath.Join(t.TempDir(), "image.tar")
	must(t, os.WriteFile(image, make([]byte, 1024), 0o644))
	docker("import", image, "none")
	docker("create", "--runtime", dockerName, "--name", "ours", "none", "/x")
	expect("no error")
	docker("create", "--name", "made-before", "none", "/x")
	expect("a container was made with another runtime, and does not pass through the wrapper: made-before (runc); " + remedy)
	docker("create", "--runtime", "other", "--name", "an-other", "none", "/x")
	docker("create", "--runtime", "runc", "--name", "runc-by-name", "none", "/x")
	expect("3 containers were made with another runtime, and do not pass through the wrapper: an-other (other), made-before (runc), runc-by-name (runc); " + remedy)
	reaching = append(reaching, "runc") // as containerd finds it
	expect("a container was made with another runtime, and does not pass through the wrapper: an-other (other); " + remedy)
	reaching = reaching[:1]
	docker("create", "--name", "z", "--name", "zz", "none", "/x")
	expect("4 containers were made with another runtime, and do not pass through the wrapper: an-other (other), made-before (runc), runc-by-name (runc) and 1 more; " + remedy)

	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := otherRuntimes(ctx, nil, client...); !strings.Contains(errorText(err), "took too long") {
		t.Errorf("no time: %v", err)
	}
}

const remedy = `make them again, or, for runc, run "afalg-policy install containerd" as well`

// The client is a script: a container can go between the two questions.
func TestDockerContainerGone(t *testing.T) {
	for name, tt := range map[string]struct{ inspect, want string }{
		"gone":           {`echo "/a afalg-policy"; echo "Error: No such container: b" >&2; exit 1`, "no error"},
		"gone, another":  {`echo "/a runc"; echo "Error: No such container: b" >&2; exit 1`, "made with another runtime"},
		"another error":  {`echo "Cannot connect" >&2; exit 1`, "Cannot connect"},
		"runtime unset":  {`echo "/a "`, "no error"},
		"shim by name":   {`echo "/a io.containerd.runc.v2"`, "a (io.containerd.runc.v2)"},
		"similar prefix": {`echo "/a afalg-policy2"`, "a (afalg-policy2)"},
	} {
		dir := t.TempDir()
		write(t, dir, "docker", "#!/bin/sh\nif [ \"$1\" = ps ]; then echo a; echo b; exit; fi\n"+tt.inspect+"\n", 0o755)
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		if got := errorText(otherRuntimes(t.Context(), []string{dockerName})); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// The notes name containerd's part in containers of the runtime runc until the
// wrapper of containerd exists.
func TestDockerBesideContainerd(t *testing.T) {
	_, _, o := rootFor(t, &txtar.Archive{Comment: []byte("programs usr/sbin/dockerd usr/bin/containerd usr/sbin/runc\n")})
	const note = `run "afalg-policy install containerd" as well`
	told := func() bool {
		t.Helper()
		r, err := Install("docker", o)
		must(t, err)
		return strings.Contains(strings.Join(r.Notes, "\n"), note)
	}
	if !told() {
		t.Error("nothing is told of containerd")
	}
	_, err := Install("containerd", o)
	must(t, err)
	if told() {
		t.Error("it is told though containerd has the wrapper")
	}
	_, err = Uninstall("containerd", o.Root, false)
	must(t, err)
	if !told() {
		t.Error("nothing is told after the wrapper of containerd went")
	}
}
