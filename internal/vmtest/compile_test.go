//go:build vm

package vmtest

import (
	"os/exec"
	"testing"
)

// compile makes program of C sources. flags has those sources, and what else
// gcc needs. Kernel headers have the same asm directory for every ABI of x86,
// and gcc looks for it under the native ABI's name alone.
func compile(t testing.TB, program string, flags ...string) {
	t.Helper()
	args := append([]string{"-O1", "-Wall", "-Werror", "-idirafter", "/usr/include/x86_64-linux-gnu", "-o", program}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %q: %v\n%s", flags, err, out)
	}
}
