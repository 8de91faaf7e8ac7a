package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
)

// Known reports whether libseccomp knows a system call, on any architecture.
// The runtimes skip a rule for an unknown one.
func Known(name string) bool {
	_, err := libseccomp.GetSyscallFromName(name)
	return err == nil
}

// maxCall is above every number of any ABI, without the ABI's base.
const maxCall = 1 << 10

// Number finds a call in the table of an architecture, as a filter sees it: x32
// numbers have bit 30 set. An error means that the ABI has no such call.
func Number(name string, arch specs.Arch) (uint32, error) {
	a, err := archOf(arch)
	if err != nil {
		return 0, err
	}
	nr, err := libseccomp.GetSyscallFromNameByArch(name, a)
	if err != nil {
		return 0, fmt.Errorf("libseccomp %s knows no system call %q", Version(), name)
	}
	if nr >= 0 {
		return uint32(nr), nil
	}
	// Negative numbers stand for a call that socketcall or ipc multiplexes. The
	// ABI may have the call itself since, under a number of its own.
	for n := range libseccomp.ScmpSyscall(maxCall) {
		if got, err := n.GetNameByArch(a); err == nil && got == name {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%s has no system call %q of its own", arch, name)
}

// Name finds the name of a call by its number, "" if there is none.
func Name(nr uint32, arch specs.Arch) string {
	a, err := archOf(arch)
	if err != nil {
		return ""
	}
	name, err := libseccomp.ScmpSyscall(nr).GetNameByArch(a)
	if err != nil {
		return ""
	}
	return name
}
