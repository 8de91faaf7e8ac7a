package seccomp

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// The compiler understands each word that a profile may say, and no other.
func TestWordsAreThoseOfProfiles(t *testing.T) {
	for op := range operators {
		if !slices.Contains(profile.Operators(), op) {
			t.Errorf("no profile may say %s", op)
		}
	}
	for _, op := range profile.Operators() {
		if _, known := operators[op]; !known {
			t.Errorf("%s is not compiled", op)
		}
	}
	all := []specs.LinuxSeccompAction{"SCMP_ACT_OTHER"}
	for a := range actions {
		all = append(all, a)
	}
	for _, a := range all {
		p, err := profile.Parse(fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bind"],"action":%q}]}`, a))
		if err == nil {
			err = p.Loadable(profile.Host{Arch: specs.ArchX86_64})
		}
		if _, known := actions[a]; known != (err == nil) {
			t.Errorf("%s is compiled: %v; a profile that says it: %v", a, known, err)
		}
	}
}
