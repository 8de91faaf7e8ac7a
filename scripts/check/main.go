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
	slow bool
}

// suites lists the tests. Plain and slow runs of the same packages exclude
// each other.
func suites(fast bool) []suite {
	unit := suite{"tests", []string{"-race", "./..."}, false}
	if fast {
		unit.args = []string{"-short", "./..."}
	}
	machines := suite{"tests in virtual machines", []string{"-tags=vm", "-timeout=20m", "./internal/vmtest/..."}, true}
	if fast {
		return []suite{unit}
	}
	return []suite{unit, machines}
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
