package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json (see go doc test2json).
type event struct {
	Time                  time.Time
	Action, Package, Test string
}

// watch reads events as they come. It knows the running tests, and counts as
// gotestsum does: each test, and each of its parents.
type watch struct {
	events  *bufio.Reader
	partial string
	running map[event]time.Time // by package and test
	failing map[string]bool     // packages with a test that failed
	tally
}

func newWatch(events io.Reader) *watch {
	return &watch{events: bufio.NewReader(events), running: map[event]time.Time{}, failing: map[string]bool{}}
}

// read takes the new events.
func (w *watch) read() error {
	for {
		text, err := w.events.ReadString('\n')
		w.partial += text
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var e event
		if err := json.Unmarshal([]byte(w.partial), &e); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		w.partial = ""
		w.see(e)
	}
}

func (w *watch) see(e event) {
	name := event{Package: e.Package, Test: e.Test}
	switch e.Action {
	case "run":
		w.running[name] = e.Time
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		w.end(e)
		return
	}
	delete(w.running, name)
	switch e.Action {
	case "pass":
		w.passed++
	case "skip":
		w.skipped++
	case "fail":
		w.fail(e.Package)
	}
}

func (w *watch) fail(pkg string) {
	w.failed++
	w.failing[pkg] = true
}

// end handles the end of a package. A test that still runs in it has failed,
// and so has a package that fails without a test.
func (w *watch) end(e event) {
	for name := range w.running {
		if name.Package == e.Package {
			delete(w.running, name)
			w.fail(e.Package)
		}
	}
	if e.Action == "fail" && !w.failing[e.Package] {
		w.fail(e.Package)
	}
}

// line names the running tests without their parents.
func (w *watch) line(now time.Time) string {
	var names []string
	for name, since := range w.running {
		if !w.parent(name) {
			names = append(names, fmt.Sprintf("%s %s (%v)", path.Base(name.Package), name.Test, now.Sub(since).Round(time.Second)))
		}
	}
	slices.Sort(names)
	if more := len(names) - 4; more > 0 {
		names = append(names[:4], fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("      %d ended; running: %s", w.passed+w.failed+w.skipped, strings.Join(names, ", "))
}

func (w *watch) parent(name event) bool {
	for other := range w.running {
		if other.Package == name.Package && strings.HasPrefix(other.Test, name.Test+"/") {
			return true
		}
	}
	return false
}
