package gen

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if dir := clusterPrograms.dir; dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// clusterPrograms are those of testdata/kubernetes, each built once for all tests of
// the package. Their packages are in Go's cache after the first time.
var clusterPrograms struct {
	sync.Mutex
	dir string
}

func clusterProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := buildClusterProgram(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func buildClusterProgram(name string) (string, error) {
	all := &clusterPrograms
	all.Lock()
	defer all.Unlock()
	if all.dir == "" {
		dir, err := os.MkdirTemp("", "cluster")
		if err != nil {
			return "", err
		}
		all.dir = dir
	}
	path := filepath.Join(all.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "build", "-C", "../../testdata/kubernetes", "-ldflags=-s -w", "-o", path, "./"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building testdata/kubernetes/%s: %w\n%s", name, err, out)
	}
	return path, nil
}
