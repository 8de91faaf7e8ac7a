package report

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

var update = flag.Bool("update", false, "write the golden files")

// The texts of a report with each state, as a terminal shows them, one without
// UTF-8, and a file.
func TestDoctorText(t *testing.T) {
	for name, p := range map[string]term.Printer{
		"terminal": {Tables: true, Width: 80},
		"ascii":    {Tables: true, Width: 80, ASCII: true},
		"file":     {},
	} {
		d := exampleDoctor(t)
		golden(t, "doctor-"+name, p, func(p *term.Printer) {
			d.Text(p)
			d.Reasons(p)
		})
		golden(t, "fleet-"+name, p, exampleFleet(t).Text)
	}
}

func golden(t *testing.T, name string, p term.Printer, text func(*term.Printer)) {
	t.Helper()
	var out bytes.Buffer
	p.Out, p.Notes = &out, &out
	text(&p)
	path := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s: -want +got:\n%s", path, diff)
	}
	if p.ASCII && strings.ContainsFunc(out.String(), func(r rune) bool { return r >= utf8.RuneSelf }) {
		t.Errorf("%s: not ASCII", path)
	}
}

// However much there is to say, the conclusion fits on a screen. Commands alone are
// never cut.
func TestDoctorConcludesInTwentyLines(t *testing.T) {
	many := exampleDoctor(t)
	for range 5 {
		d := exampleDoctor(t)
		many.Matrix.Rows = append(many.Matrix.Rows, d.Matrix.Rows...)
		many.Users = append(many.Users, d.Users...)
		many.Layers = append(many.Layers, d.Layers...)
		many.Next = append(many.Next, d.Next...)
		many.CanGo = append(many.CanGo, d.CanGo...)
		many.Contradictions = append(many.Contradictions, d.Contradictions...)
		many.Unasked = append(many.Unasked, d.Unasked...)
	}
	many.Next[0].Command, many.Next[1].Command = "true", "true"
	many.Conclude()
	for width := 80; width < 100; width++ {
		for _, ascii := range []bool{false, true} {
			var out bytes.Buffer
			many.Text(&term.Printer{Out: &out, Notes: &out, Tables: true, Width: width, ASCII: ascii})
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if len(lines) > 20 || !strings.HasPrefix(lines[0], "verdict: open: ") {
				t.Errorf("%d lines:\n%s", len(lines), out.String())
			}
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > width {
					t.Errorf("%d columns, want %d: %s", n, width, line)
				}
			}
		}
	}
}

// A subject with an unknown state, or a verdict of nothing, is never closed.
func TestDoctorVerdict(t *testing.T) {
	cell := func(state string) Cell {
		return Cell{State: state, Rule: map[string]string{Allowed: "r"}[state], Witness: "w"}
	}
	for _, tt := range []struct {
		states  []string // of the cells of a row
		state   string
		verdict string
	}{
		{nil, LeftOpen, Undecided},
		{[]string{LeftOpen}, LeftOpen, Undecided},
		{[]string{ProvedClosed, LeftOpen}, ProvedClosed, Closed},
		{[]string{ProvedClosed, UnprovedClosed}, UnprovedClosed, Closed},
		{[]string{Allowed, ProvedClosed}, Allowed, Closed},
		{[]string{Allowed, Unknown}, Unknown, Undecided},
		{[]string{ProvedClosed, Unknown}, Unknown, Undecided},
		{[]string{ProvedClosed, "shut"}, "shut", Undecided},
		{[]string{Unknown, Open, ProvedClosed}, Open, Open},
	} {
		d := NewDoctor(Build{})
		row := Row{Subjects: []Subject{{Name: "one"}}}
		for _, s := range tt.states {
			d.Matrix.Columns = append(d.Matrix.Columns, Column{})
			row.Cells = append(row.Cells, cell(s))
		}
		d.Matrix.Rows = []Row{row}
		d.Conclude()
		if got := row.State(); got != tt.state || d.Verdict != tt.verdict {
			t.Errorf("%q: %s, %s, want %s, %s", tt.states, got, d.Verdict, tt.state, tt.verdict)
		}
	}
}

// Whoever puts a report together cannot leave out the ground of an answer.
func TestMatrixAdd(t *testing.T) {
	m := Matrix{Columns: []Column{{Name: "hash"}}}
	for want, cells := range map[string][]Cell{
		"one: there are 0 cells for 1 column":                               nil,
		`one: column hash: "shut" is no state of a cell`:                    {{State: "shut"}},
		`one: column hash: "" is no state of a cell`:                        {{}},
		"one: column hash: open without a witness":                          {{State: Open}},
		"one: column hash: allowed, and neither by a rule nor for a reason": {{State: Allowed}},
		`one: column hash: proved closed, and rule "r" allows it`:           {{State: ProvedClosed, Rule: "r"}},
	} {
		if err := m.Add(Subject{Name: "one"}, cells...); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, s := range []string{"a", "b"} {
		if err := m.Add(Subject{Name: s}, Cell{State: ProvedClosed}); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.Rows) != 1 || len(m.Rows[0].Subjects) != 2 {
		t.Errorf("subjects that may use the same are in rows of their own: %+v", m.Rows)
	}
}

// No name makes a line of its own, nor steers the terminal.
func TestHostileNamesInText(t *testing.T) {
	d, f := exampleDoctor(t), exampleFleet(t)
	const attack = "x\nverdict: closed: all of it\r\x1b[2J\u202e"
	fillTexts(reflect.ValueOf(d).Elem(), attack)
	fillTexts(reflect.ValueOf(f).Elem(), attack)
	d.Layers[0].InForce = Yes
	d.Users[0].State = Used
	d.Matrix.Rows[0].Cells[0].State, d.Matrix.Rows[0].Cells[1].State = Open, LeftOpen
	for range 30 {
		f.Next, f.CanGo, f.Users = append(f.Next, f.Next[0]), append(f.CanGo, f.CanGo[0]), append(f.Users, f.Users[0])
		f.Differs[0].Values = append(f.Differs[0].Values, f.Differs[0].Values[0])
	}
	for _, p := range []term.Printer{{Tables: true, Width: 80}, {Tables: true, Width: 300}, {}} {
		for name, text := range map[string]func(*term.Printer){"host": d.Text, "reasons": d.Reasons, "fleet": f.Text} {
			var out bytes.Buffer
			p.Out, p.Notes = &out, &out
			text(&p)
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "verdict: closed") || strings.ContainsAny(line, "\r\x1b\u202e") {
					t.Errorf("%s: a name makes the line %q", name, line)
				}
			}
			if !strings.Contains(out.String(), `x\nverdict`) {
				t.Errorf("%s: no name is shown:\n%s", name, out.String())
			}
		}
	}
}
