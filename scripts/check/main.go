// Command check runs the project's checks and tests, and ends with one line
// that counts them. Its exit status is 1 if any failed or none ran.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

func main() {
	fast := flag.Bool("fast", false, "the quick tests and nothing else")
	long := flag.Bool("long", false, "the tests that take long and nothing else")
	lint := flag.Bool("lint", false, "no tests, and all checks, those that ask other hosts too")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := ownRoot(); err != nil {
		fmt.Fprintf(os.Stderr, "the tests stay in a chroot, where those fail that need user namespaces: %v\n", err)
	}
	start := time.Now()
	t := run(os.Stdout, depth(*fast, *long, *lint))
	fmt.Printf("took %v\n\n", time.Since(start).Round(time.Second))
	sum, err := carry(os.Getenv("CHECK_TALLY"), t)
	if err != nil {
		fmt.Fprintf(os.Stderr, "CHECK_TALLY: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(sum)
	if !t.good() {
		os.Exit(1)
	}
}

// eventsFile holds the output of go test in all suites, as JSON.
const eventsFile = "out/tests.json"

func run(out io.Writer, w work) tally {
	var t tally
	if w.checks {
		fmt.Fprintln(out, "== checks")
		for _, l := range linters() {
			if w.online || !l.online {
				t.add(l.run(out))
			}
		}
	}
	if len(w.suites) == 0 {
		return t
	}
	var all []byte
	for _, s := range w.suites {
		fmt.Fprintf(out, "\n== %s\n", s.name)
		t.add(s.test(out))
		events, _ := os.ReadFile(eventsFile) // without any, the suite has failed
		all = append(all, events...)
	}
	if err := slowest(out, all); err != nil {
		fmt.Fprintf(out, "FAIL  the slowest tests: %v\n", err)
		t.failed++
	}
	return t
}

// slowest lists the ten slowest tests of all suites.
func slowest(out io.Writer, events []byte) error {
	if err := os.WriteFile(eventsFile, events, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(out, "\n== slowest")
	list := exec.Command("go", "tool", "gotestsum", "tool", "slowest", "--num=10", "--threshold=1s", "--jsonfile="+eventsFile)
	list.Stdout, list.Stderr = out, out
	return list.Run()
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

// carry adds a tally to that of the earlier runs. A file holds it from one run
// to the next; without a file there were none.
func carry(file string, t tally) (tally, error) {
	if file == "" {
		return t, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return t, err
	}
	var before tally
	if len(text) > 0 {
		if _, err := fmt.Sscan(string(text), &before.passed, &before.failed, &before.skipped); err != nil {
			return t, fmt.Errorf("%s: %w", file, err)
		}
	}
	t.add(before)
	return t, os.WriteFile(file, fmt.Appendln(nil, t.passed, t.failed, t.skipped), 0o600)
}
