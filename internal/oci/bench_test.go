package oci

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// dockerSpec is a spec with Docker's profile.
func dockerSpec(b *testing.B) []byte {
	b.Helper()
	p, err := profile.Docker().Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(specs.Spec{Version: specs.Version, Linux: &specs.Linux{Seccomp: p}})
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// BenchmarkHarden is what the wrapper does: with a memo, and without. The bar
// for the whole wrapper is 20 ms.
func BenchmarkHarden(b *testing.B) {
	spec := dockerSpec(b)
	memo, err := OpenMemo(b.TempDir(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer memo.Close()
	o := Options{Plan: loadPlan(b, "refuse"), Tool: "bench", Arch: specs.ArchX86_64, Agent: listenSocket(b)}
	kept := o
	kept.Memo = memo
	for _, bb := range []struct {
		name string
		o    Options
	}{{"proved", o}, {"kept", kept}} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := bb.o.harden(spec, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
