//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"
)

// buildPolicy grants a rule to builds, or to nobody.
func buildPolicy(t *testing.T, granted bool) []byte {
	grants := ""
	if granted {
		grants = `containers:
  grants:
    - rules: [digest]
      platforms: [docker]
      builds: true
`
	}
	return append(containerPolicy(t), grants...)
}

const digestBuild = `FROM localhost/plain:1
RUN (%s) 2>&1 || true
`

// TestBoxBuilds shows on this machine's kernel that the agent answers a step of a
// build where a grant says so.
func TestBoxBuilds(t *testing.T) { testBuilds(t, boxed(t, "docker"), true, false, true) }

// TestWideBuilds shows on a kernel with AF_ALG that such a step computes.
func TestWideBuilds(t *testing.T) {
	e := engineNamed(t, "docker")
	files := buildPlatforms(t, []engine{e})
	t.Parallel()
	p := newPlatformTest(t, e, bootPlatforms(t, "6.1"), files)
	p.begin(t, files.archive)
	testBuilds(t, p, true, false)
}

// testBuilds builds under one policy after the other, which grants the rule or
// not.
func testBuilds(t *testing.T, p *platformTest, grants ...bool) {
	vm := p.vm
	vm.WriteFile(t, buildDir+"/Dockerfile", fmt.Appendf(nil, digestBuild, digest), 0o644)
	vm.WriteFile(t, agentPolicy, buildPolicy(t, true), 0o644)
	p.installAll(t)
	want := ""
	if p.real {
		want = wantDigest(t, vm)
	}
	for _, granted := range grants {
		vm.WriteFile(t, "/srv/policy.yaml", buildPolicy(t, granted), 0o644)
		applied := vm.Run(t, installed, "apply", "/srv/policy.yaml")
		if applied.Exit != 0 {
			t.Fatalf("apply: exit status %d\n%s", applied.Exit, applied.Stderr)
		}
		before := p.asked(t)
		out := p.build(t, "BuildKit")
		switch {
		case !p.real:
			expectAsked(t, vm, out, unitLog, before, granted)
		case strings.Contains(out, want) != granted:
			t.Errorf("granted %v:\n%s", granted, out)
		}
	}
}
