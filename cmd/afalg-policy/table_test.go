package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// escapes are the sequences by which a terminal shows colours.
var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// onScreen runs the program on a terminal of 80 columns.
func onScreen(t *testing.T, env []string, args ...string) string {
	t.Helper()
	set := append([]string{"env", "TERM=xterm"}, env...)
	// The window has its size before the program starts.
	script := `stty rows 24 cols 80; exec "$@"`
	p := onTerminal(t, append([]string{"sh", "-c", script, "sh"}, append(append(set, "afalg-policy"), args...)...)...)
	p.wait()
	<-p.read
	return strings.ReplaceAll(p.screen(), "\r\n", "\n")
}

// TestTables: on a terminal no table is wider than that, colours do not count,
// and each is drawn with the characters of the locale.
func TestTables(t *testing.T) {
	profiles := repository + "/testdata/profiles/"
	commands := map[string][]string{
		"verify":    {"verify", profiles + "compares-64-bits.json", profiles + "closed.json"},
		"equal":     {"verify", "--equal", profiles + "closed.json", profiles + "compares-64-bits.json"},
		"processes": {"verify", "--all"},
		"probe":     {"probe"},
		"routes":    {"list", "routes"},
		"policies":  {"list", "policies"},
	}
	for name, args := range commands {
		t.Run(name, func(t *testing.T) {
			screen := onScreen(t, []string{"LC_ALL=C.UTF-8"}, args...)
			drawn(t, screen, "│", "└")
			if strings.ContainsRune(screen, utf8.RuneError) {
				t.Errorf("something was replaced:\n%s", screen)
			}
			coloured := strings.Contains(screen, "\x1b[3")
			if wanted := name != "policies"; coloured != wanted {
				t.Errorf("colours: %v, want %v:\n%q", coloured, wanted, screen)
			}
			plain := onScreen(t, []string{"LC_ALL=C.UTF-8", "NO_COLOR=1"}, args...)
			if strings.Contains(plain, "\x1b") {
				t.Errorf("colours in spite of NO_COLOR:\n%q", plain)
			}
			if name != "processes" { // they come and go
				if diff := cmp.Diff(escapes.ReplaceAllString(screen, ""), plain); diff != "" {
					t.Errorf("-coloured +plain:\n%s", diff)
				}
			}
			ascii := onScreen(t, []string{"LC_ALL=C"}, args...)
			drawn(t, ascii, "|", "+")
			for i, r := range ascii {
				if r > 127 {
					t.Fatalf("%q at %d:\n%s", r, i, ascii)
				}
			}
		})
	}
}

// drawn checks the lines of the tables on a screen.
func drawn(t *testing.T, screen string, edges ...string) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(escapes.ReplaceAllString(screen, "")) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, edges[0]) && !strings.HasPrefix(line, edges[1]) {
			continue
		}
		lines++
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if lines == 0 {
		t.Errorf("no table:\n%s", screen)
	}
}

// TestHelpInASCII: help is readable in every locale, and no wider than a
// terminal.
func TestHelpInASCII(t *testing.T) {
	for _, args := range [][]string{{"verify", "--help"}, {"--help"}, {"generate", "seccomp", "--help"}, {"run", "--help"}, {"install", "--help"}} {
		cmd := exec.Command("afalg-policy", args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.IndexFunc(line, func(r rune) bool { return r > 127 }) >= 0 {
				t.Errorf("%v: %s", args, line)
			}
			if strings.HasPrefix(line, "      ") && len(line) > 81 && len(strings.Fields(line)) > 1 {
				t.Errorf("%v: %d columns: %s", args, len(line)-1, line)
			}
		}
	}
}
