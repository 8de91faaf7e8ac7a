package harden

import (
	"os"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// A compiler for each of some thousand profiles would be most of what the tests
// take.
func TestMain(m *testing.M) {
	release := seccomp.Keep()
	status := m.Run()
	release()
	os.Exit(status)
}
