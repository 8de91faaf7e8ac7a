package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func uid(n uint32) *uint32 { return &n }

// noon is the time of events in tests.
var noon = time.Date(2026, 11, 2, 13, 0, 0, 123456789, time.FixedZone("", 3600))

func TestLine(t *testing.T) {
	for _, c := range []struct {
		name string
		e    entry
		want string
	}{
		{"everything", entry{kind: denied, dropped: 7, record: plan.Record{
			Time: noon, Workload: "web", Call: "bind", PID: 10, TID: 11,
			Executable: "/usr/bin/openssl", SHA256: "9f2c", UID: uid(0), User: "root", Unit: "web.service",
			Algorithm: "hash:hmac(sha512)", Reason: "no rule <allows> it", Errno: 2,
		}}, `{"time":"2026-11-02T12:00:00.123456789Z","level":"WARN","msg":"denied","container":"web","call":"bind","pid":10,"tid":11,"executable":"/usr/bin/openssl","sha256":"9f2c","uid":0,"user":"root","unit":"web.service","algorithm":"hash:hmac(sha512)","verdict":"denied","reason":"no rule <allows> it","errno":"ENOENT","dropped":7}`},
		{"allowed", entry{kind: allowed, record: plan.Record{Time: noon, Call: "bind", Allowed: true, Rule: "disk"}},
			`{"time":"2026-11-02T12:00:00.123456789Z","level":"INFO","msg":"allowed","call":"bind","verdict":"allowed","rule":"disk"}`},
		{"an errno without a name", entry{kind: denied, record: plan.Record{Time: noon, Errno: 524}},
			`{"time":"2026-11-02T12:00:00.123456789Z","level":"WARN","msg":"denied","verdict":"denied","errno":"524"}`},
		{"failure", entry{kind: failed, record: plan.Record{Time: noon}, what: "pairs", err: errors.New("gone\nfor good")},
			`{"time":"2026-11-02T12:00:00.123456789Z","level":"ERROR","msg":"error","what":"pairs","error":"gone\nfor good"}`},
		{"failure without an error", entry{kind: failed, record: plan.Record{Time: noon}, what: "pairs", dropped: 1},
			`{"time":"2026-11-02T12:00:00.123456789Z","level":"ERROR","msg":"error","what":"pairs","dropped":1}`},
		{"nothing prints that should not", entry{kind: denied, record: plan.Record{Time: noon,
			Executable: "/a\n{\"msg\":\"allowed\"}\x1b[2J\x7f\xff\u009b\u202e\u2028\U000E0001é\\"}},
			`{"time":"2026-11-02T12:00:00.123456789Z","level":"WARN","msg":"denied","executable":"/a\n{\"msg\":\"allowed\"}\u001b[2J\u007f\ufffd\u009b\u202e\u2028\udb40\udc01é\\","verdict":"denied"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := newLiner(&out).entry(&c.e); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != c.want+"\n" {
				t.Errorf("got  %swant %s", got, c.want)
			}
		})
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		name, in string
		limit    int
		want     string
	}{
		{"short", "/bin/sh", 100, "/bin/sh"},
		{"just fits", strings.Repeat("a", 100), 100, strings.Repeat("a", 100)},
		{"the ends stay", "/begin" + strings.Repeat("a", 4096) + "/end", 53, "/begin" + "aaaa…4086 bytes…aaaaaa/end"},
		{"escapes count", strings.Repeat("\n", 20), 100, strings.Repeat("\n", 5) + "…10 bytes…" + strings.Repeat("\n", 5)},
		{"whole characters", strings.Repeat("é", 60), 100, strings.Repeat("é", 17) + "…52 bytes…" + strings.Repeat("é", 17)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := shorten(c.in, c.limit); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if got := cost(shorten(c.in, c.limit)); got > c.limit {
				t.Errorf("takes %d bytes of %d", got, c.limit)
			}
		})
	}
}

// decoded is a line as another reader sees it.
type decoded struct {
	Time                                 time.Time
	Level, Msg, Container, Call          string
	PID, TID                             int
	Executable, SHA256                   string
	UID                                  *uint32
	User, Unit, Algorithm, Verdict, Rule string
	Reason, Errno, What                  string
	Err                                  string `json:"error"`
	Dropped                              uint64
	Subjects                             int
}

// told counts the events that a line reports.
func (d *decoded) told() uint64 {
	if d.Msg == "dropped" {
		return d.Dropped
	}
	return 1 + d.Dropped
}

// decode reads one line, and fails on anything else.
func decode(t testing.TB, line string) decoded {
	t.Helper()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Fatalf("not one line: %q", line)
	}
	if len(line) > maxLine {
		t.Fatalf("a line of %d bytes", len(line))
	}
	for _, r := range strings.TrimSuffix(line, "\n") {
		if !strconv.IsPrint(r) {
			t.Fatalf("%q does not print: %q", r, line)
		}
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	var got decoded
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return got
}

var cut = regexp.MustCompile(`…([0-9]+) bytes…`)

// same compares a text with its form in a line: the same, with U+FFFD for each
// byte that is not UTF-8, or both ends and the number of bytes between them.
func same(t *testing.T, key, in, got string) {
	t.Helper()
	want := []rune(in)
	if got == string(want) {
		return
	}
	if worst := len(in) * maxCost; worst <= maxText {
		t.Fatalf("%s: %q is cut, which takes %d bytes at most", key, in, worst)
	}
	var starts []int // of characters
	for i := range in {
		starts = append(starts, i)
	}
	for _, at := range cut.FindAllStringSubmatchIndex(got, -1) { // a text may hold such words
		head, tail := []rune(got[:at[0]]), []rune(got[at[1]:])
		rest := len(want) - len(tail)
		if rest <= len(head) || !slices.Equal(want[:len(head)], head) || !slices.Equal(want[rest:], tail) {
			continue
		}
		missing := append(starts, len(in))[rest] - starts[len(head)]
		if got[at[2]:at[3]] == strconv.Itoa(missing) {
			return
		}
	}
	t.Fatalf("%s: got %q for %q", key, got, in)
}

func FuzzLine(f *testing.F) {
	f.Add("web", "/usr/bin/openssl", "root", "a.service", "hash:sha256", "why", uint32(2), int64(0), true)
	f.Add("", "/a\n\x00\x1b\xff\u2028\u202e"+strings.Repeat("\x01", 4096), "\u009b", strings.Repeat(`\x2d`, 90), "…3 bytes…", "\"}\n{", uint32(999), int64(-1), false)
	f.Add(strings.Repeat("\U000E0001", 99), strings.Repeat("\xc3", 4096), strings.Repeat("é", 300), "", "", strings.Repeat("\xe2\x80", 2000), uint32(0), int64(5), true)
	f.Fuzz(func(t *testing.T, container, executable, user, unit, algorithm, reason string, errno uint32, id int64, allow bool) {
		r := plan.Record{
			Time: noon, Workload: container, Call: "bind", PID: 3, TID: 4, Executable: executable, SHA256: reason,
			User: user, Unit: unit, Algorithm: algorithm, Allowed: allow, Rule: unit, Reason: reason, Errno: errno,
		}
		if id >= 0 {
			r.UID = uid(uint32(id))
		}
		e := entry{kind: denied, record: r}
		if allow {
			e.kind = allowed
		}
		var out bytes.Buffer
		l := newLiner(&out)
		if err := l.entry(&e); err != nil {
			t.Fatal(err)
		}
		got := decode(t, out.String())
		for _, text := range []struct{ key, in, got string }{
			{"container", container, got.Container}, {"executable", executable, got.Executable},
			{"sha256", reason, got.SHA256}, {"user", user, got.User}, {"unit", unit, got.Unit},
			{"algorithm", algorithm, got.Algorithm}, {"rule", unit, got.Rule}, {"reason", reason, got.Reason},
		} {
			same(t, text.key, text.in, text.got)
		}
		if !got.Time.Equal(noon) || got.Call != "bind" || got.PID != 3 || got.TID != 4 || got.Verdict != e.kind.String() || (errno == 0) != (got.Errno == "") {
			t.Fatalf("got %+v of %+v", got, r)
		}
		if (r.UID == nil) != (got.UID == nil) || r.UID != nil && *r.UID != *got.UID {
			t.Fatalf("got uid %v of %v", got.UID, r.UID)
		}
		out.Reset()
		if err := l.entry(&entry{kind: failed, record: r, what: user, err: errors.New(reason)}); err != nil {
			t.Fatal(err)
		}
		got = decode(t, out.String())
		same(t, "what", user, got.What)
		same(t, "error", reason, got.Err)
	})
}

// breaking writes only as much as it has room for.
type breaking struct {
	output
	room int
}

func (b *breaking) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(b.room, len(p))
	b.room -= n
	b.b.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left")
	}
	return n, nil
}

func (b *breaking) makeRoom(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room = n
}

func TestTornLine(t *testing.T) {
	var out breaking
	l := newLiner(&out)
	e := entry{kind: denied, record: plan.Record{Time: noon}}
	for _, room := range []int{10, 0, 1, 0} { // torn; still; its end only; not torn any more
		out.makeRoom(room)
		if err := l.entry(&e); err == nil {
			t.Fatal("no error")
		}
	}
	out.makeRoom(1000)
	if err := l.entry(&e); err != nil {
		t.Fatal(err)
	}
	if torn, rest, _ := strings.Cut(out.b.String(), "\n"); torn != `{"time":"2` || decode(t, rest).Verdict != "denied" {
		t.Errorf("got %q", out.b.String())
	}
}
