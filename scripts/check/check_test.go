package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/gotestsum/testjson"
)

func TestCount(t *testing.T) {
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
		{"two that never end, one of them in a package that does", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"q","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{failed: 2}},
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
			x, err := testjson.ScanTestOutput(testjson.ScanConfig{Stdout: strings.NewReader(strings.TrimSpace(tt.events) + "\n")})
			if err != nil {
				t.Fatal(err)
			}
			if got := count(x); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// The events are kept, and a line names the running tests without their
// parents.
func TestWatch(t *testing.T) {
	const events = `{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"x/p","Test":"A"}
{"Time":"2026-01-01T00:00:10Z","Action":"run","Package":"x/p","Test":"A/x"}
{"Action":"run","Package":"x/p","Test":"B"}
{"Action":"pass","Package":"x/p","Test":"B"}
{"Action":"run","Package":"x/q","Test":"C"}
{"Action":"output","Package":"x/q","Test":"C","Output":"c_test.go:7: the cause"}
{"Action":"fail","Package":"x/q","Test":"C"}
{"Action":"run","Package":"x/q","Test":"D"}
{"Action":"fail","Package":"x/q"}
`
	var out, kept strings.Builder
	w := newWatch(&out, &kept)
	running := "none"
	_, err := testjson.ScanTestOutput(testjson.ScanConfig{
		// When the second reader is asked, all of the first was seen.
		Stdout: io.MultiReader(strings.NewReader(events), readerFunc(func([]byte) (int, error) {
			running = w.line(time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC))
			return 0, io.EOF
		})),
		Handler: w,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "      2 ended; running: p A/x (50s)"; running != want {
		t.Errorf("%q, want %q", running, want)
	}
	if kept.String() != events {
		t.Errorf("kept %s", &kept)
	}
	if !strings.Contains(out.String(), "c_test.go:7: the cause") {
		t.Errorf("printed %s", &out)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Anything that keeps go test from its work is a failure.
func TestSuiteFails(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := (suite{}).test(io.Discard, io.Discard); got.failed == 0 || got.passed > 0 {
		t.Errorf("without a module: %v", got)
	}
	if got := (suite{packages: []string{"nothing"}}).test(io.Discard, io.Discard); got.failed == 0 || got.passed > 0 {
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
		{tally{}, "0 passed, 0 failed, 0 skipped", false},
		{tally{passed: 2}, "2 passed, 0 failed, 0 skipped", true},
		{tally{passed: 2, skipped: 1}, "2 passed, 0 failed, 1 skipped", true},
		{tally{passed: 2, failed: 1}, "2 passed, 1 failed, 0 skipped", false},
	}
	for _, tt := range tests {
		if got := tt.tally.String(); got != tt.text || tt.tally.good() != tt.good {
			t.Errorf("%+v: %q, good %v", tt.tally, got, tt.tally.good())
		}
	}
}
