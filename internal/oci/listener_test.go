package oci

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A brokered profile that lets a process load a listener of its own is refused
// by the wrapper and by the gate, whoever made it.
func TestReplaceableListener(t *testing.T) {
	o := options(t, "refuse")
	out, err := o.harden([]byte(openSpec), web)
	if err != nil {
		t.Fatal(err)
	}
	mustCheck(t, o, out.Spec.Text(), web)
	for call, want := range map[string]string{
		"seccomp":     "left to a listener that can be replaced",
		"pidfd_getfd": "pidfd_getfd on x86-64 is open",
	} {
		p := seccompOf(t, out.Spec.Text())
		p.Syscalls = slices.DeleteFunc(p.Syscalls, func(r specs.LinuxSyscall) bool { return slices.Equal(r.Names, []string{call}) })
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{call}, Action: specs.ActAllow})
		text := withProfile(t, out.Spec.Text(), p)
		refusedWith(t, want, func() error { _, err := o.check(text, web); return err })
		refusedWith(t, want, func() error { _, err := o.harden(text, web); return err })
	}
}

func withProfile(t *testing.T, spec []byte, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	var whole, linux map[string]json.RawMessage
	encode := func(v any) json.RawMessage {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if err := json.Unmarshal(spec, &whole); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(whole["linux"], &linux); err != nil {
		t.Fatal(err)
	}
	linux["seccomp"] = encode(p)
	whole["linux"] = encode(linux)
	return encode(whole)
}
