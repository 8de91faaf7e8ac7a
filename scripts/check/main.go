// Command check runs the tests of a make target, the linters among them, and
// ends with one line that counts them. Its exit status is 1 if any failed or
// none ran.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	if len(os.Args) != 2 || targets[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: check test|test-all|test-wide|test-cluster|test-release|test-fast|lint")
		os.Exit(2)
	}
	if err := ownRoot(); err != nil {
		fmt.Fprintf(os.Stderr, "the tests stay in a chroot, where those fail that need user namespaces: %v\n", err)
	}
	start := time.Now()
	t, err := run(os.Stdout, targets[os.Args[1]])
	fmt.Printf("took %v\n\n", time.Since(start).Round(time.Second))
	sum, carried := carry(os.Getenv("CHECK_TALLY"), t)
	if err := errors.Join(err, carried); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(sum)
	if !t.good() {
		os.Exit(1)
	}
}

// eventsFile holds the output of go test in all suites, as JSON.
const eventsFile = "out/tests.json"

func run(out io.Writer, suites []suite) (tally, error) {
	if err := os.MkdirAll(filepath.Dir(eventsFile), 0o755); err != nil {
		return tally{}, err
	}
	events, err := os.Create(eventsFile)
	if err != nil {
		return tally{}, err
	}
	defer events.Close()
	var t tally
	for _, s := range suites {
		fmt.Fprintf(out, "\n== %s\n", s.name)
		t.add(s.test(out, events))
	}
	fmt.Fprintln(out, "\n== slowest")
	slowest := exec.Command("go", "tool", "gotestsum", "tool", "slowest", "--num=10", "--threshold=1s", "--jsonfile="+eventsFile)
	slowest.Stdout, slowest.Stderr = out, out
	return t, slowest.Run()
}

// tally counts results.
type tally struct{ passed, failed, skipped int }

const tallyFormat = "%d passed, %d failed, %d skipped"

func (t *tally) add(u tally) {
	t.passed += u.passed
	t.failed += u.failed
	t.skipped += u.skipped
}

func (t tally) good() bool { return t.failed == 0 && t.passed > 0 }

func (t tally) String() string { return fmt.Sprintf(tallyFormat, t.passed, t.failed, t.skipped) }

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
		if _, err := fmt.Sscanf(string(text), tallyFormat, &before.passed, &before.failed, &before.skipped); err != nil {
			return t, fmt.Errorf("%s: %w", file, err)
		}
	}
	t.add(before)
	return t, os.WriteFile(file, []byte(t.String()), 0o600)
}
