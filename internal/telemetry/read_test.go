package telemetry

import (
	"bytes"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func TestRead(t *testing.T) {
	var log bytes.Buffer
	w := newLiner(&log)
	for _, e := range []entry{
		{kind: allowed, record: plan.Record{Time: noon, Call: "bind", Executable: "/usr/bin/a", Unit: "a.service", Algorithm: "hash:sha1", Allowed: true, Rule: "disk"}},
		{kind: denied, dropped: 7, record: plan.Record{Time: noon, Call: "socket", Workload: "web", Executable: "/b\n"}},
	} {
		if err := w.entry(&e); err != nil {
			t.Fatal(err)
		}
	}
	log.WriteString("\n{\"time\":\n" + strings.Repeat("x", 3*maxLine) + "\n{\"verdict\":\"allowed\"}\nnot JSON")
	var got []Line
	broken, err := Read(&log, func(l Line) { got = append(got, l) })
	if err != nil || broken != 4 || len(got) != 2 {
		t.Fatalf("%d lines, %d broken, %v", len(got), broken, err)
	}
	a, b := got[0], got[1]
	if !a.Allowed() || a.Rule != "disk" || a.Executable != "/usr/bin/a" || a.Unit != "a.service" || a.Algorithm != "hash:sha1" || !a.Time.Equal(noon) {
		t.Errorf("%+v", a)
	}
	if b.Allowed() || b.Container != "web" || b.Executable != "/b\n" || b.Dropped != 7 {
		t.Errorf("%+v", b)
	}
}
