// Command check runs the project's checks and tests, and ends with one line
// that counts them. Its exit status is 1 if any failed or none ran.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	fast := flag.Bool("fast", false, "leave out what takes long: the virtual machines, the race detector, the vulnerability database")
	lint := flag.Bool("lint", false, "no tests")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	start := time.Now()
	t := run(os.Stdout, *fast, *lint)
	fmt.Printf("took %v\n\n", time.Since(start).Round(time.Second))
	fmt.Println(t)
	if !t.good() {
		os.Exit(1)
	}
}

// suite is one run of go test.
type suite struct {
	name string
	args []string
	// but are packages that ./... does not stand for.
	but []string
}

// These compute for long under the race detector, which has nothing to see in
// them: filters, proofs and probes do one thing at a time or share nothing. Of the
// commands, those of the broker are the ones that do several things at once; the
// rest of their tests wait.
const (
	filters  = "internal/bpf"
	proofs   = "internal/gen"
	probes   = "internal/probe"
	commands = "cmd/afalg-policy"
)

// suites lists the tests.
func suites(fast bool) []suite {
	if fast {
		return []suite{{name: "tests", args: []string{"-short", "./..."}}}
	}
	return []suite{
		{name: "tests, race detector", args: []string{"-race"}, but: []string{filters, proofs, probes, commands}},
		{name: "tests of the broker's commands, race detector", args: []string{"-race", "-run=^Test(Agent|RunInParallel|RunLog)", "./" + commands}},
		{name: "tests of filters, proofs, probes and commands", args: []string{"./" + filters, "./" + proofs, "./" + probes, "./" + commands}},
		{name: "tests in virtual machines", args: []string{"-tags=vm", "-timeout=20m", "-parallel=4", "./internal/vmtest/..."}},
	}
}

func run(out io.Writer, fast, lint bool) tally {
	var t tally
	fmt.Fprintln(out, "== checks")
	for _, l := range linters() {
		if !fast || !l.slow {
			t.add(l.run(out))
		}
	}
	if lint {
		return t
	}
	for _, s := range suites(fast) {
		fmt.Fprintf(out, "== %s\n", s.name)
		t.add(s.run(out))
	}
	return t
}

// tally counts results.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(u tally) {
	t.passed += u.passed
	t.failed += u.failed
	t.skipped += u.skipped
}

func (t tally) good() bool { return t.failed == 0 && t.passed > 0 }

func (t tally) String() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}
	return s
}
