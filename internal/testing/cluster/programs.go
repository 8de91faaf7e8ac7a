package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The modules that the programs of a cluster are tools of, from the root of the
// repository.
const (
	kubernetes = "testdata/kubernetes"
	containerd = "testdata/vm/containerd"
)

// kubernetesPrograms returns the directory where scripts/install leaves those of
// Kubernetes, and etcd, whose program is called server.
func kubernetesPrograms(root string) (string, error) {
	version, err := output(root, "go", "-C", kubernetes, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	compiler, err := output(root, "go", "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "afalg-policy", "kubernetes", version+"-"+compiler), nil
}

// buildContainerd builds containerd 2, its shim and ctr into a directory.
func buildContainerd(root, dir string) error {
	cmd := exec.Command("go", "-C", containerd, "build", "-trimpath", "-ldflags=-s -w", "-tags=no_btrfs,no_devmapper,no_zfs", "-o", dir+"/", "tool")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w", cmd.Args, err)
	}
	return strings.TrimSpace(string(out)), nil
}
