package main

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// linter is a program that prints what is wrong and then exits with a status,
// or, if silent, must print nothing on standard output. On the other stream go
// says that it downloads a tool.
type linter struct {
	name    string
	command []string
	silent  bool
	// online linters ask hosts other than package registries.
	online bool
	// skip begins the line that the program prints when it could not look.
	// reason says why that is no failure of the project.
	skip, reason string
}

func linters() []linter {
	return []linter{
		{name: "goimports", command: []string{"go", "tool", "goimports", "-format-only", "-l", "-local", "github.com/afalg-policy", "."}, silent: true},
		{name: "vet", command: []string{"go", "vet", "-tags=vm", "./..."}},
		{name: "staticcheck", command: []string{"go", "tool", "staticcheck", "-tags=vm", "./..."}},
		{name: "shellcheck", command: []string{"bash", "-c", "grep -rlIE '^#!.*sh$' scripts .ci | xargs shellcheck"}},
		{name: "govulncheck", command: []string{"go", "tool", "govulncheck", "./..."}, online: true,
			skip:   "govulncheck: fetching vulnerabilities: ",
			reason: "the database of vulnerabilities cannot be reached from here"},
	}
}

func (l linter) run(out io.Writer) tally {
	start := time.Now()
	var printed, text bytes.Buffer
	cmd := exec.Command(l.command[0], l.command[1:]...)
	cmd.Stdout, cmd.Stderr = &printed, &text
	err := cmd.Run()
	found := printed.Len() > 0
	printed.WriteTo(&text)
	verdict, why := l.judge(found, text.String(), err)
	fmt.Fprintf(out, "%-5s %s (%.1fs)", verdict, l.name, time.Since(start).Seconds())
	switch verdict {
	case "skip":
		fmt.Fprintf(out, ": %s: %s", l.reason, why)
	case "FAIL":
		fmt.Fprintf(out, ": %v\n%s", err, &text)
	}
	fmt.Fprintln(out)
	return tallyOf(verdict)
}

// judge returns the verdict, and for "skip" the line with the cause. If go has
// to download a tool first, it prints lines as well.
func (l linter) judge(found bool, text string, err error) (verdict, why string) {
	if err == nil {
		if l.silent && found {
			return "FAIL", ""
		}
		return "ok", ""
	}
	if l.skip != "" {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, l.skip) {
				return "skip", strings.TrimSpace(line)
			}
		}
	}
	return "FAIL", ""
}

func tallyOf(verdict string) tally {
	switch verdict {
	case "ok":
		return tally{passed: 1}
	case "skip":
		return tally{skipped: 1}
	}
	return tally{failed: 1}
}
