package telemetry

import (
	"bytes"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/testing/fields"
)

// Each field of a record is in its line.
func TestFieldsOfARecordAreLogged(t *testing.T) {
	record := plan.Record{
		Time: noon, Workload: "web", Call: "bind", PID: 10, TID: 11, Executable: "/a", Binary: "/a", SHA256: "9f2c", UID: uid(1), User: "daemon", Unit: "web.service",
		Algorithm: "hash:sha1", Allowed: true, Rule: "r", Reason: "because", Errno: 2,
	}
	line := func(r plan.Record) string {
		var out bytes.Buffer
		e := entry{kind: denied, record: r}
		if r.Allowed {
			e.kind = allowed
		}
		if err := newLiner(&out).entry(&e); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	fields.Each(t, record, func(s string) string { return s + "x" }, map[string]string{
		"Time":   "it has no fields of its own; TestLine has it",
		"Binary": "it is the executable as the kernel shows it, or nothing",
	}, func(t *testing.T, path string, changed plan.Record) {
		if line(changed) == line(record) {
			t.Errorf("another %s has the same line", path)
		}
	})
}
