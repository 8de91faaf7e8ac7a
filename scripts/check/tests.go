package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// test runs a suite under gotestsum, which prints each package when it is done,
// the failures, and the skipped tests with the reasons. It cannot print the
// running tests, so a line about them is added every minute.
func (s suite) test(out io.Writer) tally {
	args, err := s.args()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(eventsFile), 0o755)
	}
	var events *os.File
	if err == nil {
		events, err = os.Create(eventsFile)
	}
	if err != nil {
		fmt.Fprintf(out, "FAIL  %v\n", err)
		return tally{failed: 1}
	}
	defer events.Close()
	w := newWatch(events)
	status := summed(out, w, append([]string{"tool", "gotestsum", "--no-color", "--format=pkgname-and-test-fails", "--format-hide-empty-pkg", "--format-icons=text",
		"--jsonfile=" + eventsFile, "--"}, args...))
	if err := w.read(); err != nil {
		fmt.Fprintf(out, "FAIL  %v\n", err)
		w.failed++
	}
	if status != nil && w.failed == 0 {
		fmt.Fprintf(out, "FAIL  gotestsum: %v\n", status)
		w.failed++
	}
	return w.tally
}

// summed runs the go command to its end, and prints the running tests every
// minute.
func summed(out io.Writer, w *watch, args []string) error {
	cmd := exec.Command("go", args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A program with the race detector otherwise sleeps for a second at its
	// end, and the tests start hundreds of themselves.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case now := <-minute.C:
			if err := w.read(); err != nil {
				fmt.Fprintf(out, "      what runs is not known: %v\n", err)
			} else {
				fmt.Fprintln(out, w.line(now))
			}
		}
	}
}
