//go:build lint

package main

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	for name, command := range map[string][]string{
		"goimports":   {"go", "tool", "goimports", "-format-only", "-l", "-local", "github.com/afalg-policy", "."},
		"vet":         {"go", "vet", "-tags=vm,lint", "./..."},
		"staticcheck": {"go", "tool", "staticcheck", "-tags=vm,lint", "./..."},
		"actionlint":  {"go", "-C", ".github", "tool", "actionlint"}, // a module of its own: it needs an older YAML
		"shellcheck":  {"bash", "-c", "grep -rlIE '^#!.*sh$' scripts .ci | xargs shellcheck"},
	} {
		t.Run(name, func(t *testing.T) {
			if text, err := silent(command...); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
	t.Run("govulncheck", func(t *testing.T) {
		text, err := exec.Command("go", "-C", root, "tool", "govulncheck", "./...").CombinedOutput()
		if why := unreachable(string(text)); err != nil && why != "" {
			t.Skip("the database of vulnerabilities cannot be reached from here: " + why)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// silent runs a program that must print nothing: some print what is wrong and
// exit with 0. On the other stream go says that it downloads a tool.
func silent(command ...string) (text string, err error) {
	var printed, rest bytes.Buffer
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &printed, &rest
	err = cmd.Run()
	if err == nil && printed.Len() > 0 {
		err = errors.New("it printed something")
	}
	return rest.String() + printed.String(), err
}

// unreachable returns the line by which govulncheck says that it had no
// database to look into. If go has to download a tool first, it prints lines
// as well.
func unreachable(text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "govulncheck: fetching vulnerabilities: ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestLintSilent(t *testing.T) {
	for script, good := range map[string]bool{
		"true": true, "echo go: downloading example.com/tool >&2": true, "echo x.go": false, "exit 1": false, "echo x.go >&2; exit 1": false,
	} {
		if text, err := silent("sh", "-c", script); (err == nil) != good {
			t.Errorf("%s: %v, %s", script, err, text)
		}
	}
}

func TestLintUnreachable(t *testing.T) {
	const cause = "govulncheck: fetching vulnerabilities: no route"
	for text, want := range map[string]string{
		cause + "\n": cause,
		"go: downloading example.com/tool v1.0.0\ngo: downloading example.com/x v0.1.0\n" + cause + "\nexit status 1\n": cause,
		"a vulnerability":         "",
		"x.go: \"" + cause + "\"": "",
		"go: downloading example.com/tool v1.0.0\nno such host": "",
	} {
		if got := unreachable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
