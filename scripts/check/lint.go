package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// linter is a program that prints what is wrong and then exits with a status,
// or, if silent, must print nothing at all.
type linter struct {
	name    string
	command []string
	silent  bool
	slow    bool
	// skip is what the program prints when it could not look, and why that is
	// no failure of the project.
	skip, reason string
}

func linters() []linter {
	return []linter{
		{name: "gofmt", command: []string{"gofmt", "-l", "."}, silent: true},
		{name: "vet", command: []string{"go", "vet", "-tags=vm", "./..."}},
		{name: "staticcheck", command: []string{"go", "tool", "staticcheck", "-tags=vm", "./..."}},
		{name: "shellcheck", command: []string{"bash", "-c", "grep -rlIE '^#!.*sh$' scripts .ci | xargs shellcheck"}},
		{name: "govulncheck", command: []string{"go", "tool", "govulncheck", "./..."}, slow: true,
			skip:   "govulncheck: fetching vulnerabilities: ",
			reason: "the database of vulnerabilities cannot be reached from here"},
	}
}

func (l linter) run(out io.Writer) tally {
	start := time.Now()
	text, err := exec.Command(l.command[0], l.command[1:]...).CombinedOutput()
	verdict, t := l.judge(string(text), err)
	fmt.Fprintf(out, "%-5s %s (%.1fs)", verdict, l.name, time.Since(start).Seconds())
	switch verdict {
	case "skip":
		fmt.Fprintf(out, ": %s: %s", l.reason, firstLine(string(text)))
	case "FAIL":
		fmt.Fprintf(out, ": %v\n%s", err, text)
	}
	fmt.Fprintln(out)
	return t
}

func (l linter) judge(text string, err error) (string, tally) {
	switch {
	case err != nil && l.skip != "" && strings.HasPrefix(text, l.skip):
		return "skip", tally{skipped: 1}
	case err != nil || l.silent && text != "":
		return "FAIL", tally{failed: 1}
	}
	return "ok", tally{passed: 1}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
