package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Agent is the program that runs in the machine, compiled once.
var Agent = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "machine")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary,
		"github.com/afalg-policy/afalg-policy/internal/testing/machine/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // static: an initramfs holds no libraries
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return os.ReadFile(binary)
})
