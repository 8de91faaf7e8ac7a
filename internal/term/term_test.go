package term

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFit: columns share what there is, and narrow ones keep their width.
func TestFit(t *testing.T) {
	for _, tt := range []struct {
		columns  []column
		terminal int
		want     []int
	}{
		{[]column{{5, 5}, {5, 5}}, 80, []int{5, 5}},
		{[]column{{5, 5}, {100, 5}}, 80, []int{5, 68}},
		{[]column{{100, 5}, {5, 5}, {100, 5}}, 80, []int{32, 5, 32}},
		{[]column{{100, 50}, {100, 5}}, 80, []int{50, 23}},
		{[]column{{50, 50}, {100, 50}}, 80, []int{50, 23}},
		{[]column{{100, 80}, {100, 50}}, 80, []int{36, 36}},
		{[]column{{100, 5}, {100, 5}}, 10, []int{5, 5}},
		{nil, 80, []int{}},
	} {
		if diff := cmp.Diff(tt.want, fit(tt.columns, tt.terminal)); diff != "" {
			t.Errorf("%v in %d: -want +got:\n%s", tt.columns, tt.terminal, diff)
		}
	}
}

// Text that comes from a file cannot steer the terminal.
func TestPrintable(t *testing.T) {
	var stdout, stderr bytes.Buffer
	u := For(&stdout, &stderr)
	u.Printf("a\x1b[31mb\rc\u202ed\u009be\tf é…\n%d", 1)
	u.Notef("\x07")
	if got, want := stdout.String()+stderr.String(), `a\x1b[31mb\rc\u202ed\u009be`+"\tf é…\n1\n"+`\a`+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTableCells: no cell ends its line or its column.
func TestTableCells(t *testing.T) {
	var stdout bytes.Buffer
	u := For(&stdout, &stdout)
	u.Table(nil, [][]string{{"a\nverdict: closed", "b\tc"}, {"d", "e"}})
	if got, want := stdout.String(), `a\nverdict: closed`+"\t"+`b\tc`+"\nd\te\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Where both streams are one terminal, what is to be done stands below what was.
func TestNotesBehindResults(t *testing.T) {
	var screen bytes.Buffer
	out := bufio.NewWriter(&screen)
	u := Printer{Out: out, Notes: &screen}
	u.Printf("new\t/a")
	u.Notef("installed")
	u.Printf("new\t/b")
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("new\t/a\ninstalled\nnew\t/b\n", screen.String()); diff != "" {
		t.Error(diff)
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"0 rules": Count(0, "rule"), "1 rule": Count(1, "rule"), "1 process": Count(1, "process"), "2 processes": Count(2, "process"),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
