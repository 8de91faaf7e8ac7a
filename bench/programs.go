package main

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed floor
var sources embed.FS

// programs is the directory of the C programs: the timed ones, and the floor.
type programs string

func (p programs) path(name string) string { return filepath.Join(string(p), name) }

var programNames = []string{"calls", "client", "count", "data", "floor", "neighbour", "workload"}

// findPrograms uses programs built before, or builds them below a directory.
func findPrograms(built, dir string) (programs, error) {
	if built != "" {
		built, err := filepath.Abs(built)
		return programs(built), err
	}
	source := filepath.Join(dir, "source")
	if err := os.CopyFS(source, sources); err != nil {
		return "", err
	}
	for _, name := range programNames {
		cmd := exec.Command("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, name), filepath.Join(source, "floor", name+".c"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s (gcc, libc6-dev): %w: %s", name, err, out)
		}
	}
	return programs(dir), nil
}
