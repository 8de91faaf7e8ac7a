package install

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A probed container holds only the program, which needs no other file,
// and asks the kernel from inside.

const (
	probeName       = "/afalg-policy"
	containerPrefix = "afalg-policy-status-"
)

var probeArgs = []string{probeName, "probe", "--json"}

// newContainer names a container, so that two commands at a time do not meet.
func newContainer() string { return containerPrefix + strings.ToLower(rand.Text()[:10]) }

// cleanTime bounds the cleaning after a container, however it ended.
const cleanTime = 30 * time.Second

func clean(name string, args ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	_, _ = ask(ctx, name, args...) // usually gone already
}

// localDocker makes the client ignore a context that leads to another host.
const localDocker = "--context=default"

func dockerProbe(ctx context.Context, program string) error {
	name := newContainer()
	image, err := imageOf(program)
	if err != nil {
		return err
	}
	load := exec.CommandContext(ctx, "docker", localDocker, "import", "-", name)
	load.WaitDelay, load.Env = time.Second, here()
	load.Stdin = image
	defer clean("docker", localDocker, "rmi", "--force", name)
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %w: %s", err, lastLine(string(out)))
	}
	defer clean("docker", localDocker, "rm", "--force", name)
	return probe(ctx, "docker", slices.Concat([]string{localDocker, "run", "--rm", "--network=none", "--pull=never", "--name=" + name, name}, probeArgs)...)
}

func podmanProbe(ctx context.Context, program string) error {
	name := newContainer()
	root, err := rootOf(program)
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	defer clean("podman", "rm", "--force", name)
	return probe(ctx, "podman", slices.Concat([]string{"run", "--rm", "--network=none", "--security-opt=label=disable", "--name=" + name, "--rootfs", root}, probeArgs)...)
}

// containerdProbe starts a container by ctr, with containerd's default profile.
// Without --seccomp it would have none, and the policy may refuse that.
func containerdProbe(ctx context.Context, program string) error {
	name := newContainer()
	root, err := rootOf(program)
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	defer clean("ctr", "containers", "rm", name)
	defer clean("ctr", "tasks", "rm", "--force", name)
	return probe(ctx, "ctr", slices.Concat([]string{"run", "--rm", "--cpu-shares=0", "--seccomp", "--rootfs", root, name}, probeArgs)...)
}

func crioProbe(context.Context, string) error {
	return errors.New("CRI-O starts pods for a kubelet only: run \"afalg-policy probe\" in a pod")
}

// probe runs a command that prints a report of "probe --json".
func probe(ctx context.Context, name string, args ...string) error {
	open, err := openRoutes(ctx, nil, name, args...)
	if err == nil && open != nil {
		err = fmt.Errorf("in a container of %s: %s", name, strings.Join(open, ", "))
	}
	return err
}

// openRoutes runs a command that prints a report, and lists the routes that it
// does not show closed, without the expected ones.
func openRoutes(ctx context.Context, expected []string, name string, args ...string) ([]string, error) {
	routes, err := probedRoutes(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	var open []string
	for _, r := range routes {
		if slices.Contains(expected, r.Route) {
			continue
		}
		switch r.Verdict {
		case "closed", "unavailable", "brokered":
		case "absent":
			open = append(open, r.Route+" (no filter stops it; this kernel has no AF_ALG)")
		default:
			open = append(open, r.Route+" ("+r.Verdict+")")
		}
	}
	return open, nil
}

// probedRoute is a line of a report.
type probedRoute struct{ Route, Verdict string }

// probedRoutes runs a command that prints a report.
func probedRoutes(ctx context.Context, name string, args ...string) ([]probedRoute, error) {
	out, err := ask(ctx, name, args...)
	var report struct{ Routes []probedRoute }
	if badJSON := json.Unmarshal([]byte(out), &report); badJSON != nil || len(report.Routes) == 0 {
		if err == nil {
			err = fmt.Errorf("%s %s: no report came back", name, args[0])
		}
		return nil, err
	}
	return report.Routes, nil
}

// imageOf returns a file system that holds only the program, as a tar archive.
func imageOf(program string) (io.Reader, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := &tar.Header{Name: strings.TrimPrefix(probeName, "/"), Mode: 0o755, Size: int64(len(data))}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return &b, w.Close()
}

// rootOf makes a directory that holds only the program. /tmp and /run are often
// mounted noexec.
func rootOf(program string) (string, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/var/tmp", containerPrefix)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, probeName), data, 0o755); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
