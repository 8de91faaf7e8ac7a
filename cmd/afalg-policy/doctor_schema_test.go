package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	jsonschema "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/afalg-policy/afalg-policy/internal/report"
)

// doctorReports are reports of hosts and of fleets, with something and with nothing
// in them.
func doctorReports(t *testing.T) (values []map[string]any) {
	t.Helper()
	empty := report.NewDoctor(buildInfo())
	empty.Host.Name, empty.Host.Time = "empty", "2026-11-29T23:00:00Z"
	full := report.NewDoctor(buildInfo())
	fact := report.Fact{Name: "LSMs", Value: "bpf", Source: "/sys"}
	full.Host = report.DoctorHost{Name: "full", ID: "1", Time: "2026-11-29T23:00:00Z", System: "s", Kernel: "k", Machine: "m", AFALG: report.HasModule, Root: true, Facts: []report.Fact{fact}}
	full.Policy = &report.Policy{Name: "p", Digest: "sha256:0"}
	full.Users = []report.User{{Name: "u", State: report.Used, Executable: "/e", Unit: "u", Container: "c", Algorithms: []string{"hash:sha1"}, Seen: "2026", Evidence: []report.Evidence{{Kind: "log", Text: "t"}}}}
	full.Layers = []report.Layer{{Name: "l", Subject: "s", InForce: report.Yes, Closes: []string{"hash"}, Reason: "r"}}
	full.Matrix.Columns = []report.Column{{Name: "hash", Title: "t"}}
	must(t, full.Matrix.Add(report.Subject{Name: "s", Kind: "unit", Container: "c", Unit: "u", Processes: 1}, report.Cell{State: report.Open, By: []string{"l"}, Witness: "w", Reason: "r"}))
	must(t, full.Matrix.Add(report.Subject{Name: "a"}, report.Cell{State: report.Allowed, Rule: "r"}))
	full.Next = []report.Step{{Title: "t", Command: "c", Closes: []string{"hash"}, Breaks: []string{"b"}, When: "now", Undo: "u"}}
	full.CanGo = []report.Expiry{{What: "w", Why: "y", Command: "c"}}
	full.Contradictions = []report.Contradiction{{About: "a", Claims: []report.Fact{fact, fact}, Taken: "bpf"}}
	full.Unasked = []report.Unasked{{What: "w", Why: "y"}}
	full.Conclude()
	dir := t.TempDir()
	var files []string
	add := func(v any) {
		text, err := json.Marshal(v)
		must(t, err)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		must(t, err)
		values = append(values, value.(map[string]any))
		files = append(files, filepath.Join(dir, string(rune('a'+len(files)))))
		must(t, os.WriteFile(files[len(files)-1], text, 0o644))
	}
	add(empty)
	add(full)
	for _, some := range [][]string{nil, files, {files[0], files[0], files[1], dir}} {
		fleet, err := report.MergeDoctor(some, buildInfo(), time.Now())
		must(t, err)
		add(fleet)
	}
	return values
}
