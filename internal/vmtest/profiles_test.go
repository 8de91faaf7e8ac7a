//go:build vm

package vmtest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
)

// podmanBase is Podman's default profile, from Debian's
// golang-github-containers-common.
const podmanBase = "/usr/share/containers/seccomp.json"

// program is the binary under test, the one that make build leaves.
func program(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/afalg-policy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// generate runs the program's generate command and returns its standard
// output.
func generate(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"generate"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%v: %v\n%s", cmd.Args, err, exit.Stderr)
	}
	return out
}

// confinement is the profile of a container.
type confinement struct {
	name     string // the column of a table
	seccomp  []byte // linux.seccomp of config.json
	apparmor string // the name of a profile
}

// seccompConfinements are the columns of seccompRoutes.
func seccompConfinements(t testing.TB) []confinement {
	t.Helper()
	docker, err := json.Marshal(mobyseccomp.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	podman, err := os.ReadFile(podmanBase)
	if err != nil {
		t.Fatal(err)
	}
	shipped := []confinement{
		{name: "no profile"},
		{name: "docker", seccomp: resolve(t, docker)},
		{name: "docker, granted", seccomp: granted(t)},
		{name: "podman", seccomp: resolve(t, podman)},
	}
	return append(shipped, hardened(t)...)
}

// resolve makes of a base what its engine hands to the runtime. Docker's own
// code does so here, not ours.
func resolve(t testing.TB, base []byte) []byte {
	t.Helper()
	container := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: machine.Capabilities()}}}
	profile, err := mobyseccomp.LoadProfile(string(base), container)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// hardened are the profiles that close AF_ALG, on each base.
func hardened(t testing.TB) []confinement {
	return []confinement{
		{name: "docker, hardened", seccomp: harden(t, "docker")},
		{name: "podman, hardened", seccomp: harden(t, podmanBase)},
		{name: "none, hardened", seccomp: harden(t, "none")},
	}
}

func harden(t testing.TB, base string, args ...string) []byte {
	t.Helper()
	return generate(t, append([]string{"seccomp", "builtin:baseline", "--base", base}, args...)...)
}

// kept hardens a base and leaves socketcall to an LSM.
func kept(t testing.TB, base string) []byte {
	t.Helper()
	return harden(t, base, "--socketcall", "keep", "--accept", "compat-socketcall")
}

// granted is the profile for the workload that holds the rule of the fips
// policy, on Docker's base.
func granted(t testing.TB) []byte {
	t.Helper()
	const rule = "fips-integrity-check"
	return generate(t, "seccomp", "builtin:fips", "--grant", rule, "--accept", rule)
}
