package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestPackagesTogether has apt plan an installation of every group's packages on a
// machine that has none yet. One that shuts out another would end the second target
// that a person calls.
func TestPackagesTogether(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, "scripts/install"))
	if err != nil {
		t.Fatal(err)
	}
	var packages []string
	for _, m := range regexp.MustCompile(`(?m)^[a-z0-9]+ +\| +(\S+) +\| `).FindAllSubmatch(script, -1) {
		packages = append(packages, string(m[1]))
	}
	if len(packages) < 50 {
		t.Fatalf("only %d packages were found in scripts/install", len(packages))
	}
	lists := "-oDir::State::Lists=" + t.TempDir()
	if out, err := exec.Command("apt-get", lists, "-oAPT::Sandbox::User=root", "update").CombinedOutput(); err != nil {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	plan := func(packages ...string) ([]byte, error) {
		args := []string{lists, "-oDir::State::status=/dev/null", "install", "--simulate", "--no-install-recommends"}
		return exec.Command("apt-get", append(args, packages...)...).CombinedOutput()
	}
	if out, err := plan(packages...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// It shuts out every cross compiler.
	if out, err := plan(append(packages, "gcc-multilib")...); err == nil {
		t.Errorf("apt would install gcc-multilib beside gcc-aarch64-linux-gnu:\n%s", out)
	}
}
