//go:build amd64

package live

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// TestStrictFilter holds the program against kernel/seccomp.c: a call of x32
// has bit 30 in its number, and is none of the four.
func TestStrictFilter(t *testing.T) {
	f := strictFilter(Strict)
	if err := f.Check(); err != nil || len(f) != 1 {
		t.Fatal(f, err)
	}
	tests := map[bpf.Data]bpf.Kind{
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 0}:              bpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 1}:              bpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 15}:             bpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 60}:             bpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 231}:            bpf.KillThread,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 41}:             bpf.KillThread,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 1 << 30}:        bpf.KillThread,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 3}:                bpf.Allow,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 119}:              bpf.Allow,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 0}:                bpf.KillThread,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 102}:              bpf.KillThread,
		{Arch: unix.AUDIT_ARCH_AARCH64, Nr: unix.SYS_READ}: bpf.KillThread,
	}
	for d, want := range tests {
		if a, _, err := f.Run(d, bpf.Little); err != nil || a.Kind() != want {
			t.Errorf("%v: %v, %v; want %v", d, a, err, want)
		}
	}
	if strictFilter(Disabled) != nil {
		t.Error("no filter became one")
	}
}
