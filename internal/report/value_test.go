package report

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// textOf renders a report, with its notes.
func textOf(r interface{ Text(*term.Printer) }) string {
	var out bytes.Buffer
	r.Text(&term.Printer{Out: &out, Notes: &out})
	return out.String()
}

// A report that was read back from JSON, as of another node, shows the same.
func TestReadBack(t *testing.T) {
	const profiles = repository + "/testdata/profiles/"
	read := readFor(t, []string{profiles + "compares-64-bits.json", profiles + "closed.json"}, nil)
	compared, err := Compare(sourcesOf(t, profiles+"closed.json"), sourcesOf(t, profiles+"compares-64-bits.json"), Exceptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := hostOf(t, verify.Verdict{State: verify.Open, Call: afalg.Call{Route: afalg.RouteSocket}, Actions: []string{"ALLOW"}})
	for _, tt := range []struct {
		made, back interface{ Text(*term.Printer) }
		has        string
	}{
		{read, &Filters{}, "args[0]=0x100000026"},
		{compared, &Comparison{}, " for arch=0xc000003e"},
		{host, &Host{}, "stack\topen\t0123456789ab\tfiltered, 0 programs, 0 instructions\tsocket\t"},
	} {
		text, err := json.Marshal(tt.made)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, tt.back); err != nil {
			t.Fatal(err)
		}
		shown := textOf(tt.made)
		if diff := cmp.Diff(shown, textOf(tt.back)); diff != "" {
			t.Errorf("-made +read back:\n%s", diff)
		}
		if !bytes.Contains([]byte(shown), []byte(tt.has)) {
			t.Errorf("%T does not show %q:\n%s", tt.made, tt.has, shown)
		}
	}
}

func sourcesOf(t *testing.T, name string) []source.Source {
	t.Helper()
	var r source.Reader
	in := r.Read([]string{name}, nil)
	if len(in.Broken) > 0 {
		t.Fatal(in.Broken)
	}
	return in.Of(0)
}

// hostOf is a host of one process, about whose filter there is one answer.
func hostOf(t *testing.T, v verify.Verdict) *Host {
	t.Helper()
	stack := &live.Stack{ID: "0123456789abcdef", Mode: live.Filtered}
	h := live.Snapshot{Processes: []live.Process{{PID: 7, Command: "one", Threads: []live.Thread{{TID: 7, Stack: stack}}}}}
	stacks := stacksOf(h, nil)
	ask := func(source.Source) ([]about, []verify.Verdict, error) {
		return []about{{what: "AF_ALG"}}, []verify.Verdict{v}, nil
	}
	if err := stacks[0].decide(source.Source{}, ask); err != nil {
		t.Fatal(err)
	}
	return reportHost(h, "amd64", stacks, nil)
}

// Where nothing was asked, nothing is closed or equal.
func TestNothingAsked(t *testing.T) {
	var memo verify.Memo
	r, err := Questions{}.Ask(source.Input{}, &memo)
	if err != nil || r.Verdict != Undecided {
		t.Errorf("no filter is %s, %v", r.Verdict, err)
	}
	c, err := Compare(nil, nil, Exceptions{})
	if err != nil || c.Verdict != Undecided {
		t.Errorf("no pair is %s, %v", c.Verdict, err)
	}
}

// Each word counts more as a failure than the one before. An unknown word leaves
// nothing out.
func TestJudge(t *testing.T) {
	note := Finding{Finding: verify.Finding{Level: verify.Note}}
	warning := Finding{Finding: verify.Finding{Level: verify.Warning}}
	closed := Filter{Answers: []Answer{{Verdict: Closed}}}
	open := Filter{Answers: []Answer{{Verdict: Undecided}}}
	for _, tt := range []struct {
		word                string
		open, warning, note bool
	}{
		{"none", false, false, false},
		{"open", true, false, false},
		{"error", true, false, false},
		{"warning", true, true, false},
		{"note", true, true, true},
		{"nothing of the kind", true, true, true},
	} {
		for _, one := range []struct {
			r    Filters
			want bool
		}{
			{Filters{Filters: []Filter{open}}, tt.open},
			{Filters{Filters: []Filter{closed}, Findings: []Finding{warning}}, tt.warning},
			{Filters{Filters: []Filter{closed}, Findings: []Finding{note}}, tt.note},
			{Filters{}, tt.open}, // nothing was proved
		} {
			if one.r.Judge(tt.word); one.r.Failed != one.want {
				t.Errorf("%s: failed %t: %+v", tt.word, one.r.Failed, one.r)
			}
		}
	}
}
