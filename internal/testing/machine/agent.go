package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Agent is the program that runs in a machine like this one, and AgentARM64 in
// one of that architecture. Each is compiled once.
var (
	Agent      = agent(runtime.GOARCH)
	AgentARM64 = agent("arm64")
)

func agent(goarch string) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		return Program(goarch, "build", "github.com/afalg-policy/afalg-policy/internal/testing/machine/guest")
	})
}

// Program returns a program in Go for a machine of an architecture. It is
// static: a machine need not have libraries. The command of go that compiles it
// is "build" or "test", with further arguments: "-c" for the tests of a package,
// and the package.
func Program(goarch, command string, args ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "machine")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "program")
	cmd := exec.Command("go", append([]string{command, "-trimpath", "-ldflags=-s -w", "-o", binary}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v for %s: %w\n%s", cmd.Args, goarch, err, out)
	}
	return os.ReadFile(binary)
}
