package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWatch(t *testing.T) {
	tests := []struct {
		name, events string
		want         tally
	}{
		{"subtests, and what they are part of", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"output","Package":"p","Test":"A/x","Output":"ok\n"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Elapsed":0.5}`,
			tally{passed: 2}},
		{"one that fails", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{failed: 1}},
		{"one that never ends", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"q","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{failed: 1}},
		{"one that is skipped", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`,
			tally{skipped: 1}},
		{"a package that fails and none of its tests, beside one that does", `
{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: bad\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
{"Action":"run","Package":"q","Test":"A"}
{"Action":"fail","Package":"q","Test":"A"}
{"Action":"fail","Package":"q"}`,
			tally{failed: 2}},
		{"a package without tests", `
{"Action":"skip","Package":"p"}`, tally{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatch(strings.NewReader(strings.TrimSpace(tt.events) + "\n"))
			if err := w.read(); err != nil {
				t.Fatal(err)
			}
			if w.tally != tt.want {
				t.Errorf("got %+v, want %+v", w.tally, tt.want)
			}
		})
	}
	if err := newWatch(strings.NewReader("panic: no JSON\n")).read(); err == nil {
		t.Error("junk was read as events")
	}
}

// The watch reads events in pieces, and its line names the running tests
// without their parents.
func TestWatchGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events")
	to, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	w := newWatch(from)
	for _, piece := range []string{
		`{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"x/p","Test":"A"}`, "\n",
		`{"Time":"2026-01-01T00:00:10Z","Action":"run","Pack`, `age":"x/p","Test":"A/x"}` + "\n" + `{"Action":"run","Package":"x/p","Test":"B"}` + "\n",
		`{"Action":"pass","Package":"x/p","Test":"B"}` + "\n",
	} {
		if _, err := to.WriteString(piece); err != nil {
			t.Fatal(err)
		}
		if err := w.read(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := w.line(time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)), "      1 ended; running: p A/x (50s)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Anything that keeps gotestsum from its work is a failure.
func TestSuiteFails(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := (suite{}).test(&strings.Builder{}); got.failed == 0 || got.passed > 0 {
		t.Errorf("without a module: %v", got)
	}
	if got := (suite{packages: []string{"nothing"}}).test(&strings.Builder{}); got.failed == 0 || got.passed > 0 {
		t.Errorf("without a package: %v", got)
	}
}

// In CI, the last line of make test-all covers make test too.
func TestCarry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tally")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var got tally
	var err error
	for _, one := range []tally{{passed: 1, skipped: 2}, {passed: 10, failed: 20}} {
		if got, err = carry(file, one); err != nil {
			t.Fatal(err)
		}
	}
	if want := (tally{11, 20, 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, err := carry("", tally{passed: 3}); err != nil || got != (tally{passed: 3}) {
		t.Errorf("no file: %+v, %v", got, err)
	}
	if err := os.WriteFile(file, []byte("many"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := carry(file, tally{}); err == nil {
		t.Error("junk was read as a tally")
	}
}

func TestTally(t *testing.T) {
	tests := []struct {
		tally tally
		text  string
		good  bool
	}{
		{tally{}, "0 passed, 0 failed", false},
		{tally{passed: 2}, "2 passed, 0 failed", true},
		{tally{passed: 2, skipped: 1}, "2 passed, 0 failed, 1 skipped", true},
		{tally{passed: 2, failed: 1}, "2 passed, 1 failed", false},
	}
	for _, tt := range tests {
		if got := tt.tally.String(); got != tt.text || tt.tally.good() != tt.good {
			t.Errorf("%+v: %q, good %v", tt.tally, got, tt.tally.good())
		}
	}
}

func TestJudge(t *testing.T) {
	exit := errors.New("exit status 1")
	plain, silent, online := linter{}, linter{silent: true}, linter{skip: "no database: "}
	tests := []struct {
		name      string
		l         linter
		text      string
		err       error
		want, why string
	}{
		{"ok", plain, "remark", nil, "ok", ""},
		{"bad status", plain, "", exit, "FAIL", ""},
		{"silent", silent, "", nil, "ok", ""},
		{"not silent", silent, "x.go", nil, "FAIL", ""},
		{"could not look", online, "no database: no route\n", exit, "skip", "no database: no route"},
		{"could not look, with a tool that was not there yet", online,
			"go: downloading example.com/tool v1.0.0\ngo: downloading example.com/x v0.1.0\nno database: no route\nexit status 1\n", exit,
			"skip", "no database: no route"},
		{"said so and did look", online, "no database: never mind", nil, "ok", ""},
		{"looked and found", online, "a vulnerability", exit, "FAIL", ""},
		{"found it in a text", online, "x.go: \"no database: \"", exit, "FAIL", ""},
		{"the tool could not be had", online, "go: downloading example.com/tool v1.0.0\nno such host", exit, "FAIL", ""},
		{"another linter may not skip", plain, "no database: no route", exit, "FAIL", ""},
	}
	for _, tt := range tests {
		if got, why := tt.l.judge(tt.text != "", tt.text, tt.err); got != tt.want || why != tt.why {
			t.Errorf("%s: got %s, %q, want %s, %q", tt.name, got, why, tt.want, tt.why)
		}
	}
}

// A tool that go downloads first has found nothing by that.
func TestSilentDownload(t *testing.T) {
	for script, want := range map[string]tally{"echo go: downloading example.com/tool >&2": {passed: 1}, "echo x.go": {failed: 1}} {
		var out bytes.Buffer
		if got := (linter{name: "tool", command: []string{"sh", "-c", script}, silent: true}).run(&out); got != want {
			t.Errorf("%s: %v: %s", script, got, out.String())
		}
	}
}

// A result counts as a failure unless it is known to be good.
func TestTallyOf(t *testing.T) {
	for verdict, want := range map[string]tally{"ok": {passed: 1}, "skip": {skipped: 1}, "FAIL": {failed: 1}, "": {failed: 1}} {
		if got := tallyOf(verdict); got != want {
			t.Errorf("%s: %v", verdict, got)
		}
	}
}

// Only the linters of make lint ask hosts other than package registries.
func TestOnline(t *testing.T) {
	var online []string
	for _, l := range linters() {
		if l.online {
			online = append(online, l.name)
		}
	}
	if d := cmp.Diff([]string{"govulncheck"}, online); d != "" {
		t.Error(d)
	}
}
