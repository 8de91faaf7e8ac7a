// Package kerneltest skips tests that the running kernel cannot run. It trusts
// no setting: it tries. It is for tests only.
package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedI386 skips a test, or a part of one, that makes i386 calls where the
// kernel has none.
func NeedI386(t testing.TB) {
	t.Helper()
	if !I386(t) {
		t.Skip("this kernel runs no 32-bit code: int $0x80 ended a child that asked for its process ID; " +
			"the tests on real kernels (internal/vmtest) make these calls")
	}
}

// I386 reports whether the kernel has i386 calls. The test ends where neither
// answer is certain.
func I386(t testing.TB) bool {
	t.Helper()
	runs, err := i386()
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// getpid32 asks for its process ID by the i386 call. Without IA32 emulation,
// the interrupt has no gate for user space, and the instruction is a fault.
const getpid32 = `
#include <unistd.h>
int main(void)
{
	int got = 20; // getpid
	__asm__ volatile("int $0x80" : "+a"(got) : : "r8", "r9", "r10", "r11", "memory");
	return got == getpid() ? 0 : -got;
}
`

// The answer holds for the life of a kernel.
var i386 = sync.OnceValues(func() (bool, error) {
	dir, err := os.MkdirTemp("", "getpid32")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "getpid32")
	build := exec.Command("gcc", "-x", "c", "-static", "-o", program, "-")
	build.Stdin = strings.NewReader(getpid32)
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("compile the question whether the kernel runs 32-bit code: %w\n%s", err, out)
	}
	return runs32(exec.Command(program).Run())
})

// runs32 reads the end of the child. Only a fault and ENOSYS mean no.
func runs32(err error) (bool, error) {
	var exit *exec.ExitError
	if err == nil {
		return true, nil
	}
	if errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == unix.SIGSEGV || status.ExitStatus() == int(unix.ENOSYS) {
			return false, nil
		}
	}
	return false, fmt.Errorf("ask whether the kernel runs 32-bit code: %w", err)
}
