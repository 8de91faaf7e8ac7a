package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCount(t *testing.T) {
	tests := []struct {
		name, events string
		want         tally
		out          string
	}{
		{"leaves only", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"run","Package":"p","Test":"A/y"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/y"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Elapsed":0.5}`,
			tally{passed: 2}, "ok    p: 2 passed, 0 failed (0.5s)\n"},
		{"a failed leaf, and its parent", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"output","Package":"p","Test":"A/x","Output":"bad\n"}
{"Action":"fail","Package":"p","Test":"A/x"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{failed: 1}, "FAIL  p A/x\nbad\nFAIL  p: 0 passed, 1 failed (0.0s)\n"},
		{"a parent that fails by itself", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"output","Package":"p","Test":"A","Output":"bad\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{passed: 1, failed: 1}, "FAIL  p A\nbad\nFAIL  p: 1 passed, 1 failed (0.0s)\n"},
		{"a test that never ends", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			tally{failed: 1}, "FAIL  p A\nFAIL  p: 0 passed, 1 failed (0.0s)\n"},
		{"a skipped test, with its reason", `
{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"why\n"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`,
			tally{skipped: 1}, "skip  p A\nwhy\nok    p: 0 passed, 0 failed, 1 skipped (0.0s)\n"},
		{"a package that does not build", `
{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: bad\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			tally{failed: 1}, "FAIL  p\nFAIL p [build failed]\nx.go:1: bad\n"},
		{"a package without tests", `
{"Action":"skip","Package":"p"}`, tally{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			got, err := count(&out, strings.NewReader(tt.events))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if d := cmp.Diff(tt.out, out.String()); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := count(&strings.Builder{}, strings.NewReader("panic: no JSON")); err == nil {
		t.Error("junk was read as events")
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
		name string
		l    linter
		text string
		err  error
		want string
	}{
		{"ok", plain, "remark", nil, "ok"},
		{"bad status", plain, "", exit, "FAIL"},
		{"silent", silent, "", nil, "ok"},
		{"not silent", silent, "x.go", nil, "FAIL"},
		{"could not look", online, "no database: no route", exit, "skip"},
		{"looked and found", online, "a vulnerability", exit, "FAIL"},
		{"another linter may not skip", plain, "no database: no route", exit, "FAIL"},
	}
	for _, tt := range tests {
		if got, _ := tt.l.judge(tt.text, tt.err); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
