//go:build amd64

package live

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// TestStrictCalls joins the table with afalg's.
func TestStrictCalls(t *testing.T) {
	for name := range strictCalls {
		if _, known := afalg.ABINamed(name); !known {
			t.Errorf("%q is no ABI", name)
		}
	}
}

// TestStrictFilter compares the program with kernel/seccomp.c: a call of x32
// has bit 30 in its number, and is none of the four.
func TestStrictFilter(t *testing.T) {
	f := strictFilter(Strict)
	if err := f.Check(); err != nil || len(f) != 1 {
		t.Fatal(f, err)
	}
	tests := map[cbpf.Data]cbpf.Kind{
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 0}:              cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 1}:              cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 15}:             cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 60}:             cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 231}:            cbpf.KillThread,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 41}:             cbpf.KillThread,
		{Arch: unix.AUDIT_ARCH_X86_64, Nr: 1 << 30}:        cbpf.KillThread,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 3}:                cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 119}:              cbpf.Allow,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 0}:                cbpf.KillThread,
		{Arch: unix.AUDIT_ARCH_I386, Nr: 102}:              cbpf.KillThread,
		{Arch: unix.AUDIT_ARCH_AARCH64, Nr: unix.SYS_READ}: cbpf.KillThread,
	}
	for d, want := range tests {
		if a, _, err := f.Run(d, cbpf.Little); err != nil || a.Kind() != want {
			t.Errorf("%v: %v, %v; want %v", d, a, err, want)
		}
	}
	if strictFilter(Disabled) != nil {
		t.Error("no filter became one")
	}
}
