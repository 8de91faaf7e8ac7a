package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var mergeTime = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

// smallDoctor is a report of one subject and one column.
func smallDoctor(name, id, asked, state string) *Doctor {
	d := NewDoctor(Build{Version: "1.0"})
	d.Host.Name, d.Host.ID, d.Host.Time, d.Host.Kernel = name, id, asked, "6.12"
	d.Matrix.Columns = []Column{{Name: "hash"}}
	d.Matrix.Rows = []Row{{[]Subject{{Name: "one"}}, []Cell{{State: state, Witness: "socket(AF_ALG)"}}}}
	d.Conclude()
	return d
}

func mergeOf(t *testing.T, all ...any) *Fleet {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for i, one := range all {
		if text, ok := one.(string); ok {
			one = json.RawMessage(text)
		}
		files = append(files, writeReport(t, dir, fmt.Sprint(i), one))
	}
	f, err := MergeDoctor(files, Build{}, mergeTime)
	if err != nil {
		t.Fatal(err)
	}
	f.relative(dir)
	return f
}

// Which report of a host counts, and what becomes of the fleet's verdict.
func TestMergeHosts(t *testing.T) {
	const monday, tuesday = "2026-11-23T08:00:00Z", "2026-11-24T08:00:00Z"
	for name, tt := range map[string]struct {
		reports []any
		verdict string
		hosts   string // names and verdicts, the worst first
		says    string // in a note, or of a file
	}{
		"none":       {nil, Undecided, "", ""},
		"all closed": {[]any{smallDoctor("a", "1", monday, ProvedClosed), smallDoctor("b", "2", monday, ProvedClosed)}, Closed, "a closed, b closed", ""},
		"one open":   {[]any{smallDoctor("a", "1", monday, ProvedClosed), smallDoctor("b", "2", monday, Open)}, Open, "b open, a closed", ""},
		"one unknown": {
			[]any{smallDoctor("a", "1", monday, ProvedClosed), smallDoctor("b", "2", monday, Unknown)}, Undecided, "b undecided, a closed", ""},
		"the newer counts": {
			[]any{smallDoctor("a", "1", tuesday, ProvedClosed), smallDoctor("a", "1", monday, Open)}, Closed, "a closed", "1.json by 0.json"},
		"the newer counts, whatever the order": {
			[]any{smallDoctor("a", "1", monday, ProvedClosed), smallDoctor("a", "1", tuesday, Open)}, Open, "a open", "0.json by 1.json"},
		"zones are no matter": {
			[]any{smallDoctor("a", "1", "2026-11-23T23:30:00-05:00", ProvedClosed), smallDoctor("a", "1", "2026-11-24T03:00:00Z", Open)}, Closed, "a closed", "1.json by 0.json"},
		"of one time the worse": {
			[]any{smallDoctor("a", "1", monday, Open), smallDoctor("a", "1", monday, ProvedClosed)}, Open, "a open", "1.json by 0.json"},
		"three of one host": {
			[]any{smallDoctor("a", "1", monday, Open), smallDoctor("a", "1", tuesday, ProvedClosed), smallDoctor("a", "1", monday, Unknown)}, Closed, "a closed", "2.json by 1.json"},
		"one name, two hosts": {
			[]any{smallDoctor("localhost", "1", monday, Open), smallDoctor("localhost", "2", tuesday, ProvedClosed)}, Open, "localhost open, localhost closed",
			"2 hosts have the name localhost and differ in their IDs; all are counted: 0.json, 1.json"},
		"clones": {
			[]any{smallDoctor("a", "1", monday, Open), smallDoctor("b", "1", tuesday, ProvedClosed)}, Open, "a open, b closed",
			"2 hosts have one ID: they are clones, or one was renamed; all are counted: a, b"},
		"of a time to come": {
			[]any{smallDoctor("a", "1", "2027-11-24T08:00:00Z", ProvedClosed)}, Closed, "a closed",
			"1 report of a time to come: a clock is wrong, and an older report may count as the newest: a"},
		"one that cannot be read": {
			[]any{smallDoctor("a", "1", monday, ProvedClosed), `{"report": "doctor", "version": 2}`}, Undecided, "a closed",
			"1.json: version 2 of the form, and this program reads up to 1: merge with the newest afalg-policy of the fleet"},
		"none that can be read": {[]any{`[]`}, Undecided, "", "0.json: not a report"},
	} {
		t.Run(name, func(t *testing.T) {
			f := mergeOf(t, tt.reports...)
			var hosts, said []string
			for _, h := range f.List {
				hosts = append(hosts, h.Name+" "+h.Verdict)
			}
			said = append(said, f.Notes...)
			for _, s := range f.Superseded {
				said = append(said, s.File+" by "+s.By)
			}
			for _, u := range f.Unreadable {
				said = append(said, u.File+": "+u.Why)
			}
			if got := strings.Join(hosts, ", "); f.Verdict != tt.verdict || got != tt.hosts || f.Hosts != len(f.List) {
				t.Errorf("%s: %q, want %s: %q", f.Verdict, got, tt.verdict, tt.hosts)
			}
			if got := strings.Join(said, "\n"); !strings.Contains(got, tt.says) || tt.says == "" && got != "" {
				t.Errorf("says %q, want %q", got, tt.says)
			}
		})
	}
}

// What hosts do not have alike, and what they do.
func TestMergeDiffers(t *testing.T) {
	var all []any
	for i, change := range []func(d *Doctor){
		func(d *Doctor) { d.Host.Facts = []Fact{{Name: "LSMs", Value: "bpf"}, {Name: "LSMs", Value: "bpf"}} },
		func(d *Doctor) { d.Layers = []Layer{{Name: "seccomp", InForce: Yes}, {Name: "seccomp", InForce: No}} },
		func(d *Doctor) { d.Layers = []Layer{{Name: "seccomp", InForce: Yes}}; d.Host.Kernel = "6.1" },
	} {
		d := smallDoctor(fmt.Sprint("host", i), "", "2026-11-24T08:00:00Z", ProvedClosed)
		change(d)
		all = append(all, d)
	}
	f := mergeOf(t, all...)
	var got []string
	for _, d := range f.Differs {
		got = append(got, d.What+": "+d.Summary())
	}
	want := []string{
		"kernel: 6.12 on 2, 6.1 on 1",
		"LSMs: not reported on 2, bpf on 1",
		"layer seccomp: in part on 1, in force on 1, not reported on 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if same := fmt.Sprint(f.Same); !strings.Contains(same, "{afalg-policy 1.0 }") || strings.Contains(same, "kernel") {
		t.Errorf("the same on all hosts: %s", same)
	}
}

// Texts that are no report, or contradict themselves, are refused with what to do.
func TestParseDoctorRefuses(t *testing.T) {
	good, err := json.Marshal(smallDoctor("a", "1", "2026-11-24T08:00:00Z", ProvedClosed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseDoctor(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"report":"doctor"`, `"report":"verify --all"`, "a report of \"verify --all\": give what `afalg-policy doctor --json` prints"},
		{`"version":1`, `"version":2`, "version 2 of the form, and this program reads up to 1: merge with the newest afalg-policy of the fleet"},
		{`"version":1,"verdict":"closed","host":{"name":"a"`, `"version":2,"verdict":"closed","host":{"name":["a"]`, "version 2 of the form, and this program reads up to 1: "},
		{`"version":1`, `"version":0`, "version 0 of the form, which was never written: make the report again"},
		{`"version":1`, `"version":1e99`, "not a report: "},
		{`"version":1`, `"version":1,"version":1`, `key "version" stands twice in one object`},
		{`"version":1`, `"version":1,"Verdict":"closed"`, `key "Verdict" is written "verdict"`},
		{`"state":"proved closed"`, `"state":"proved closed","State":"open"`, `key "State" is written "state"`},
		{`"name":"a"`, `"name":""`, "the host has no name"},
		{`"name":"a"`, `"name":["a"]`, "not a report of doctor: "},
		{`"state":"proved closed"`, `"state":"shut"`, `row 1: column "hash": "shut" is no state of a cell`},
		{`"state":"proved closed"`, `"state":"open"`, `the verdict is closed, and the matrix says open`},
		{`"state":"proved closed"`, `"state":"unknown"`, `the verdict is closed, and the matrix says undecided`},
		{`"cells":[{`, `"cells":[{"state":"proved closed"},{`, `row 1: there are 2 cells for 1 column`},
		{`"verdict":"closed"`, `"verdict":"fine"`, `"fine" is no verdict of doctor`},
		{`"users":[]`, `"users":[{"name":"x","state":"idle"}]`, `user "x": "idle" is no state of a user`},
		{`"layers":[]`, `"layers":[{"name":"x","in-force":"on"}]`, `layer "x": in force is "on"`},
		{`"layers":[]`, `"layers":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "depth"},
		{`"layers":[]`, `"more":[` + strings.Repeat("0,", 300000) + `0],"layers":[]`, "values up to here"},
		{`{"report"`, "\xff\xfe{\"report\"", "mark of UTF-16"},
	} {
		text := strings.Replace(string(good), tt.old, tt.new, 1)
		if text == string(good) {
			t.Fatalf("%q is not in %s", tt.old, good)
		}
		if _, err := ParseDoctor([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60s: %v, want %s", tt.new, err, tt.want)
		}
	}
	later := strings.Replace(string(good), `"version":1`, `"version":1,"of-later":{"a":[1]}`, 1)
	if _, err := ParseDoctor([]byte(later)); err != nil {
		t.Errorf("a key of a later program is refused: %v", err)
	}
}

// A file that is not what it seems ends nothing.
func TestMergeFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil {
		t.Fatal(err)
	}
	f, err := MergeDoctor([]string{large, dir, filepath.Join(dir, "none"), "/dev/zero"}, Build{}, mergeTime)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Unreadable) != 4 || f.Verdict != Undecided {
		t.Errorf("%+v", f)
	}
}

// Reports that hold more than can be kept are an error, and no crash.
func TestMergeIsBounded(t *testing.T) {
	k := &keeper{texts: map[string]string{}, room: 10_000}
	d := exampleDoctor(t)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		d.Host.Facts[0].Value = fmt.Sprint(n)
		_, err = k.summary("file", d)
	}
	if !errors.Is(err, errTooMuch) || n < 2 {
		t.Errorf("after %d reports: %v", n, err)
	}
	long := k.text(strings.Repeat("é", maxText))
	if len(long) > maxText+len("…") || !strings.HasSuffix(long, "é…") {
		t.Errorf("a long text is cut to %d bytes, ending in %q", len(long), long[len(long)-8:])
	}
}

// A fleet of 5,000 hosts, with some hundred subjects each, is merged within seconds.
func BenchmarkMerge(b *testing.B) {
	dir := b.TempDir()
	text, err := json.Marshal(exampleDoctor(b))
	if err != nil {
		b.Fatal(err)
	}
	var files []string
	for i := range 5000 {
		name := fmt.Sprintf("node-%d.json", i)
		path := filepath.Join(dir, name)
		one := strings.Replace(string(text), `"name":"node-7","id":"7f3a"`, fmt.Sprintf(`"name":%q,"id":"%d"`, name, i), 1)
		if err := os.WriteFile(path, []byte(one), 0o644); err != nil {
			b.Fatal(err)
		}
		files = append(files, path)
	}
	b.ResetTimer()
	for b.Loop() {
		f, err := MergeDoctor(files, Build{}, mergeTime)
		if err != nil || f.Hosts != 5000 {
			b.Fatal(f, err)
		}
		var page strings.Builder
		if err := f.HTML(&page); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(page.Len())/1e6, "MB-of-HTML")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.Sys)/1e6, "MB-of-memory")
	}
}

// What was read is what was written, whatever the report says; what is refused is
// refused without a crash.
func FuzzParseDoctor(f *testing.F) {
	small := exampleDoctor(f)
	for i := range small.Matrix.Rows {
		small.Matrix.Rows[i].Subjects = small.Matrix.Rows[i].Subjects[:1]
	}
	for _, v := range []any{small, smallDoctor("a", "1", "2026-11-24T08:00:00Z", Open), smallDoctor("\u202e", "", "", Unknown)} {
		text, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"report":"doctor","version":1,"verdict":"undecided","host":{"name":"\ud800"},"users":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDoctor(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseDoctor(written)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v: %s", err, written)
		}
		if !reflect.DeepEqual(d, again) {
			t.Errorf("-read +read again:\n%s", cmp.Diff(d, again))
		}
		if d.Verdict == Closed && d.Matrix.verdict() != Closed {
			t.Errorf("closed, and the matrix says %s", d.Matrix.verdict())
		}
	})
}
