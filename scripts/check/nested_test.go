package main

import (
	"os/exec"
	"testing"
)

// The program that makes packages is a module of its own, which go test ./... does
// not see.
func TestNested(t *testing.T)        { nested(t, "-skip="+long) }
func TestReleaseNested(t *testing.T) { nested(t, "-run="+long) }

func nested(t *testing.T, which string) {
	t.Helper()
	for _, args := range [][]string{{"vet", "./..."}, {"test", "-count=1", which, "./..."}} {
		cmd := exec.Command("go", append([]string{"-C", "packaging"}, args...)...)
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %s in packaging: %v\n%s", args[0], err, text)
		}
	}
}
