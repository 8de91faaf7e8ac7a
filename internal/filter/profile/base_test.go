package profile

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// TestDockerAsWritten reads the text of Docker's profile, which has fields that
// a copy by hand could forget.
func TestDockerAsWritten(t *testing.T) {
	text, err := json.Marshal(mobyseccomp.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	same := []cmp.Option{cmpopts.IgnoreUnexported(Profile{}), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(want, Docker(), same...); diff != "" {
		t.Errorf("-read +typed:\n%s", diff)
	}
}

// TestBasesAreRead: what is hardened without a text is what would be read.
func TestBasesAreRead(t *testing.T) {
	for _, p := range []*Profile{Docker(), AllowAll(specs.ArchX86_64), AllowAll("SCMP_ARCH_NEW")} {
		text, err := jsontext.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, again, cmpopts.IgnoreUnexported(Profile{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-typed +read:\n%s", diff)
		}
	}
}

// TestOfSpec: a value is checked as a text is.
func TestOfSpec(t *testing.T) {
	resolved, err := Docker().Resolve(Host{Arch: specs.ArchX86_64})
	if err != nil {
		t.Fatal(err)
	}
	p, err := OfSpec(resolved)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Resolve(Host{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(resolved, again); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	for _, broken := range []*specs.LinuxSeccomp{
		{Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}}},
		{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{""}, Action: specs.ActAllow}}},
		{DefaultAction: specs.ActErrno, Architectures: make([]specs.Arch, maxArches+1)},
	} {
		if _, err := OfSpec(broken); err == nil {
			t.Errorf("taken: %+v", broken)
		}
	}
}
