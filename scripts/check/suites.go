package main

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// suite is one run of go test.
type suite struct {
	name        string
	race, short bool
	tag         string
	// run and skip are patterns of names. packages are the packages to test, by
	// their folders, and but those to leave out; no packages means all.
	run, skip     string
	packages, but []string
}

// Tests named TestLong… take long, and are for make test-all alone. Those named
// TestCluster… need programs of Kubernetes that take minutes to build, and those named
// TestRelease… build all packages, twice. Those named TestWide… show for one more
// engine what others show.
const (
	long     = "^(Test|Fuzz)Long"
	clusters = "^TestCluster"
	releases = "^TestRelease"
	wides    = "^TestWide[A-Z]"
	aside    = long + "|" + clusters + "|" + releases + "|" + wides
	inBoxes  = "^TestBox"
	atOnce   = "^(Test(Agent|RunInParallel|RunLog).*|TestConcurrent)$"
	online   = "^TestLint$/^govulncheck$" // asks a host other than package registries
	commands = "cmd/afalg-policy"
	learning = "internal/learn"
	machines = "internal/vmtest"
	own      = "scripts/check"
)

// repeated are the parts of long tests, by name and pattern, that show on one more
// kernel, or for one more engine, what make test-all shows already: make test-wide
// runs them. Where the kernels differ, make test and the long tests of the kernel
// half ask both.
var repeated = map[string]string{
	"TestLongAgent":     older,
	"TestLongAttacks":   older,
	"TestLongHost":      older,
	"TestLongMachine":   older,
	"TestLongPlatforms": "^6[.]", // side by side: boxes show it too, without AF_ALG
	"TestLongRestore":   older,
	"TestLongSELinux":   older,
	"TestLongSockets32": "^podman$",
	"TestLongVerify":    older,
}

const older = "^6[.]1(,|$)"

func repeats() string {
	var patterns []string
	for _, name := range slices.Sorted(maps.Keys(repeated)) {
		patterns = append(patterns, "^"+name+"$/"+repeated[name])
	}
	return strings.Join(patterns, "|")
}

// concurrent lists the packages that do several things at once. The race
// detector would find nothing in the others, and slow them down. In two
// packages it runs only the tests atOnce: those of the broker's commands, and
// of a recorder with many users.
var concurrent = []string{
	"internal/agent", "internal/broker", "internal/doctor", "internal/keeper", "internal/launch", "internal/live", "internal/notify", "internal/nri", "internal/parallel", "internal/report",
	"internal/filter/seccomp", "internal/subject", "internal/telemetry", own,
}

// targets has the suites of each make target.
var targets = map[string][]suite{
	"lint":      {{name: "linters", tag: "lint", run: "^TestLint", packages: []string{own}}},
	"test-fast": {{name: "quick tests", short: true, skip: aside}},
	"test": {
		{name: "linters", tag: "lint", run: "^TestLint", skip: online, packages: []string{own}},
		{name: "tests of what is concurrent, race detector", race: true, skip: aside, packages: concurrent},
		{name: "tests of what is used at once, race detector", race: true, run: atOnce, packages: []string{commands, learning}},
		{name: "all other tests", skip: aside + "|" + atOnce, but: concurrent},
		{name: "tests in boxes", tag: "vm", run: inBoxes, skip: long, packages: []string{"internal/testing/box", machines}},
		{name: "tests in virtual machines", tag: "vm", skip: aside + "|" + inBoxes + "|^TestMeasured", packages: []string{machines}},
	},
	"test-all": {
		{name: "long tests", run: long},
		{name: "long tests in virtual machines", tag: "vm", run: long, skip: repeats(), packages: []string{machines}},
	},
	"test-wide":    {{name: "long tests on the older kernel, and for more engines", tag: "vm", run: wides + "|" + repeats(), packages: []string{machines}}},
	"test-cluster": {{name: "tests of the chart, and on a cluster", tag: "vm", run: clusters, packages: []string{"deploy", machines}}},
	"test-release": {{name: "tests of releases", tag: "vm", run: releases, packages: []string{machines, own}}},
}

// args returns the arguments of go test.
func (s suite) args() ([]string, error) {
	// The time-out is the last resort against a test that hangs. No machine is
	// too slow for it.
	args := []string{"-count=1", "-timeout=80m"}
	for flag, on := range map[string]bool{"-race": s.race, "-short": s.short, "-tags=" + s.tag: s.tag != "", "-parallel=3": s.tag == "vm", "-run=" + s.run: s.run != "", "-skip=" + s.skip: s.skip != ""} {
		if on {
			args = append(args, flag)
		}
	}
	slices.Sort(args)
	for _, p := range s.packages {
		args = append(args, "./"+p)
	}
	if len(s.packages) > 0 {
		return args, nil
	}
	listed, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Module.Path}}", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for line := range strings.Lines(string(listed)) {
		path, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !slices.Contains(s.but, strings.TrimPrefix(path, module+"/")) {
			args = append(args, path)
		}
	}
	return args, nil
}
