package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"gotest.tools/gotestsum/testjson"
)

// test runs a suite. gotestsum prints each package when it is done, the
// failures, and the skipped tests with the reasons.
func (s suite) test(out, events io.Writer) tally {
	x, err := s.scan(newWatch(out, events))
	var t tally
	if x != nil {
		testjson.PrintSummary(out, x, testjson.SummarizeAll)
		t = count(x)
	}
	// Whatever keeps go test from its work is a failure.
	if err != nil && t.failed == 0 {
		fmt.Fprintf(out, "FAIL  %v\n", err)
		t.failed++
	}
	return t
}

// scan runs go test to its end.
func (s suite) scan(w *watch) (*testjson.Execution, error) {
	args, err := s.args()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	// A program with the race detector otherwise sleeps for a second at its
	// end, and the tests start hundreds of themselves.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	stdout, outErr := cmd.StdoutPipe()
	stderr, errErr := cmd.StderrPipe()
	if err := errors.Join(outErr, errErr, cmd.Start()); err != nil {
		return nil, err
	}
	go w.everyMinute(ctx)
	x, err := testjson.ScanTestOutput(testjson.ScanConfig{Stdout: stdout, Stderr: stderr, Handler: w, Stop: stop})
	return x, errors.Join(err, cmd.Wait())
}

// count counts as gotestsum does: each test, each of its parents, and each
// package that fails without a test.
func count(x *testjson.Execution) tally {
	t := tally{failed: len(x.Failed()), skipped: len(x.Skipped())}
	for _, name := range x.Packages() {
		t.passed += len(x.Package(name).Passed)
	}
	return t
}

// watch has gotestsum print events, and keeps them. gotestsum does not print
// the running tests, so that a test of many minutes looks as if it hung; watch
// adds a line about them every minute.
type watch struct {
	sync.Mutex
	out, events io.Writer
	format      testjson.EventFormatter
	ended       int
	running     map[testName]time.Time
}

type testName struct{ pkg, test string }

func newWatch(out, events io.Writer) *watch {
	return &watch{out: out, events: events, running: map[testName]time.Time{}, format: testjson.NewEventFormatter(out,
		"pkgname-and-test-fails", testjson.FormatOptions{HideEmptyPackages: true, Icons: "text"})}
}

// Event is called for each line of go test -json.
func (w *watch) Event(e testjson.TestEvent, x *testjson.Execution) error {
	w.Lock()
	defer w.Unlock()
	switch {
	case e.Action == testjson.ActionRun:
		w.running[testName{e.Package, e.Test}] = e.Time
	case e.Action.IsTerminal() && e.PackageEvent():
		maps.DeleteFunc(w.running, func(name testName, _ time.Time) bool { return name.pkg == e.Package })
	case e.Action.IsTerminal():
		delete(w.running, testName{e.Package, e.Test})
		w.ended++
	}
	if line := e.Bytes(); len(line) > 0 { // none if gotestsum adds the end of a test that has none
		if _, err := fmt.Fprintf(w.events, "%s\n", line); err != nil {
			return err
		}
	}
	return w.format.Format(e, x)
}

// Err is called for each line that go test prints besides.
func (w *watch) Err(line string) error {
	w.Lock()
	defer w.Unlock()
	_, err := fmt.Fprintln(w.out, line)
	return err
}

func (w *watch) everyMinute(ctx context.Context) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-minute.C:
			w.Lock()
			fmt.Fprintln(w.out, w.line(now))
			w.Unlock()
		}
	}
}

// line names the running tests without their parents.
func (w *watch) line(now time.Time) string {
	var names []string
	for name, since := range w.running {
		if !w.parent(name) {
			names = append(names, fmt.Sprintf("%s %s (%v)", path.Base(name.pkg), name.test, now.Sub(since).Round(time.Second)))
		}
	}
	slices.Sort(names)
	if more := len(names) - 4; more > 0 {
		names = append(names[:4], fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("      %d ended; running: %s", w.ended, strings.Join(names, ", "))
}

func (w *watch) parent(name testName) bool {
	for other := range w.running {
		if other.pkg == name.pkg && strings.HasPrefix(other.test, name.test+"/") {
			return true
		}
	}
	return false
}
