package report

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// TestReportHost counts each process once, by the worst of its threads, and
// calls a host open if one process could not be asked.
func TestReportHost(t *testing.T) {
	shared := &live.Stack{ID: "0123456789abcdef", Mode: live.Filtered}
	none := &live.Stack{ID: "fedcba9876543210"}
	host := live.Snapshot{Processes: []live.Process{
		{PID: 7, Command: "mixed", Threads: []live.Thread{{TID: 7, Stack: shared}, {TID: 8, Stack: none}, {TID: 9, Stack: shared}}},
		{PID: 10, Command: "safe", Threads: []live.Thread{{TID: 10, Stack: shared}}},
	}}
	asked := 0
	ask := func(s source.Source) ([]about, []verify.Verdict, error) {
		asked++
		state := verify.Closed
		if strings.HasSuffix(s.Name, none.ID) {
			state = verify.Undecided
		}
		return []about{{what: "AF_ALG"}}, []verify.Verdict{{State: state}}, nil
	}
	var places map[int]Place
	report := func() *Host {
		stacks := stacksOf(host, places)
		for _, u := range stacks {
			if err := u.decide(source.Source{}, ask); err != nil {
				t.Fatal(err)
			}
		}
		return reportHost(host, "amd64", stacks, places)
	}
	r := report()
	if asked != 2 || r.Verdict != Open || r.Threads != 4 {
		t.Errorf("asked %d times: %+v", asked, r)
	}
	want := []VerdictCount{{"open", 0}, {"undecided", 1}, {"listener", 0}, {"closed", 1}}
	if d := cmp.Diff(want, r.Verdicts); d != "" {
		t.Error(d)
	}
	host.Processes = host.Processes[1:]
	if report().Verdict != Closed {
		t.Error("a closed host is open")
	}
	host.Unread = []live.Unread{{PID: 11, Command: "traced", Err: os.ErrPermission}}
	if report().Verdict != Open {
		t.Error("a host with a process that was not asked is closed")
	}
	places = map[int]Place{11: {Expected: "traced on purpose"}}
	if r := report(); r.Verdict != Closed || r.Expected != 1 {
		t.Errorf("a process that may be open was not asked: %s, %d expected", r.Verdict, r.Expected)
	}
}
