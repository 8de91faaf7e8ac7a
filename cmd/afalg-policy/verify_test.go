package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/report"
)

// verifyRun runs verify and returns its standard output and status.
func verifyRun(t *testing.T, args ...string) (stdout string, status int) {
	t.Helper()
	var out, notes bytes.Buffer
	status = run(append([]string{"verify"}, args...), strings.NewReader(""), &out, &notes)
	if status == exitUsage || status == exitHost {
		t.Fatalf("verify %q: status %d: %s", args, status, notes.String())
	}
	return out.String(), status
}

// TestGeneratedIsClosed: what the generator writes is closed, and none of its
// rules is one that verify calls an error.
func TestGeneratedIsClosed(t *testing.T) {
	for _, base := range []string{"docker", "none"} {
		for _, format := range []string{"oci", "docker"} {
			path := filepath.Join(t.TempDir(), "profile.json")
			var notes bytes.Buffer
			args := []string{"generate", "seccomp", "builtin:baseline", "--base", base, "--format", format, "-o", path}
			if status := run(args, strings.NewReader(""), &notes, &notes); status != exitYes {
				t.Fatalf("%v: %s", args, notes.String())
			}
			text, status := verifyRun(t, "--json", path)
			if status != exitYes {
				t.Errorf("base %s, format %s: not closed", base, format)
			}
			var r report.Filters
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}
			for _, f := range r.Findings {
				if f.Level != "note" {
					t.Errorf("base %s, format %s: %s:%d: %s", base, format, f.File, f.Line, f.Message)
				}
			}
		}
	}
}
