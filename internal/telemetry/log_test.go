package telemetry

import (
	"bytes"
	gocmp "cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// output is the text of a log, to be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// lines takes the lines written so far.
func (o *output) lines(t testing.TB) []decoded {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []decoded
	for line := range strings.Lines(o.b.String()) {
		all = append(all, decode(t, line))
	}
	o.b.Reset()
	return all
}

// brief prints lines, equal ones in a row as one.
func brief(lines []decoded) []string {
	var all []string
	last, n := "", 0
	flush := func() {
		if n > 0 {
			all = append(all, fmt.Sprintf("%d× %s", n, last))
		}
	}
	for _, d := range lines {
		s := strings.TrimRight(fmt.Sprintf("%s %s%s%s %s", d.Msg, d.Container, d.Executable, d.What, d.Verdict), " ")
		if d.Dropped > 0 {
			s += fmt.Sprintf(" dropped=%d", d.Dropped)
		}
		if d.Subjects > 0 {
			s += fmt.Sprintf(" subjects=%d", d.Subjects)
		}
		if d.Err != "" {
			s += " " + d.Err
		}
		if s != last {
			flush()
			last, n = s, 0
		}
		n++
	}
	flush()
	return all
}

func record(container, executable string, allow bool) plan.Record {
	return plan.Record{Workload: container, Call: "bind", Executable: executable, UID: uid(0), Allowed: allow}
}

// script runs a test in a bubble with its own clock.
func script(t *testing.T, o LogOptions, do func(t *testing.T, l *Log, out *output)) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := NewLog(&out, o)
		do(t, l, &out)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func expect(t *testing.T, out *output, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, brief(out.lines(t))); diff != "" {
		t.Errorf("unexpected lines (-want +got):\n%s", diff)
	}
}

func repeat(n int, do func()) {
	for range n {
		do()
		synctest.Wait() // the queue is empty
	}
}

func TestFloodOfOneSubject(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		deny := func() { l.Decided(record("web", "/bin/a", false)) }
		repeat(30, deny)
		expect(t, out, "20× denied web/bin/a denied")
		time.Sleep(time.Second)
		repeat(3, deny)
		expect(t, out, "1× denied web/bin/a denied dropped=10")
		time.Sleep(4 * time.Second)
		expect(t, out)
		time.Sleep(6 * time.Second)
		expect(t, out, "1× dropped web/bin/a denied dropped=2")
		time.Sleep(time.Hour)
		expect(t, out)
		repeat(21, deny)
		expect(t, out, "20× denied web/bin/a denied")
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, out, "1× dropped web/bin/a denied dropped=1")
	})
}

func TestNobodyIsDrowned(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		// Another verdict, subject or container has a limit of its own.
		repeat(50, func() { l.Decided(record("web", "/bin/a", true)) })
		expect(t, out, "20× allowed web/bin/a allowed")
		l.Decided(record("web", "/bin/a", false))
		expect(t, out, "1× denied web/bin/a denied")
		other := record("web", "/bin/a", true)
		other.UID = uid(1)
		l.Decided(other)
		other.UID = nil
		l.Decided(other)
		l.Decided(record("web", "/bin/b", true))
		l.Decided(record("db", "/bin/a", true))
		expect(t, out, "2× allowed web/bin/a allowed", "1× allowed web/bin/b allowed", "1× allowed db/bin/a allowed")
		time.Sleep(10 * time.Second)
		expect(t, out, "1× dropped web/bin/a allowed dropped=30")
	})
}

func TestSubjectsWithoutEnd(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		i := 0
		repeat(5000, func() {
			i++
			l.Decided(record("web", fmt.Sprint("/bin/", i), false))
		})
		if n := len(out.lines(t)); n != 100 {
			t.Errorf("%d lines", n)
		}
		if n := len(l.keeper.sources); n != maxGroup {
			t.Errorf("%d sources are kept", n)
		}
		l.Decided(record("db", "/bin/a", false))
		expect(t, out, "1× denied db/bin/a denied")
		time.Sleep(10 * time.Second)
		expect(t, out, "1× dropped web denied dropped=4900")
	})
}

func TestSubjectsInOneSummary(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		repeat(23, func() { l.Decided(record("web", "/bin/a", false)) })
		repeat(24, func() { l.Decided(record("web", "/bin/b", false)) })
		expect(t, out, "20× denied web/bin/a denied", "20× denied web/bin/b denied")
		time.Sleep(10 * time.Second)
		expect(t, out, "1× dropped web denied dropped=7 subjects=2")
	})
}

func TestFloodThatGoesOn(t *testing.T) {
	for name, o := range map[string]LogOptions{
		"of a subject":   {Subject: Limit{1, time.Hour}},
		"of a container": {Subject: Limit{1, time.Millisecond}, Container: Limit{1, time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			script(t, o, func(t *testing.T, l *Log, out *output) {
				for range 90 {
					l.Decided(record("web", "/bin/a", false))
					time.Sleep(time.Second)
				}
				lines := out.lines(t)
				if len(lines) != 2 || lines[1].Msg != "dropped" || lines[1].Dropped < 50 {
					t.Errorf("got %q", brief(lines))
				}
				time.Sleep(10 * time.Second)
				expect(t, out, fmt.Sprintf("1× dropped web/bin/a denied dropped=%d", 90-lines[0].told()-lines[1].told()))
			})
		})
	}
}

// TestRoomIsMadeByTheQuiet shows that newcomers do not reset an active source.
func TestRoomIsMadeByTheQuiet(t *testing.T) {
	for name, container := range map[string]string{"in one container": "web", "in all": ""} {
		t.Run(name, func(t *testing.T) {
			o := LogOptions{Subject: Limit{1, time.Hour}, Container: Limit{Burst: 10000}}
			script(t, o, func(t *testing.T, l *Log, out *output) {
				i := 0
				repeat(maxSources+100, func() {
					i++
					l.Decided(record("web", "/bin/a", false))
					l.Decided(record(gocmp.Or(container, fmt.Sprint(i)), fmt.Sprint(i), false))
				})
				n := 0
				for _, d := range out.lines(t) {
					if d.Executable == "/bin/a" {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%d lines", n)
				}
			})
		})
	}
}

func TestContainersWithoutEnd(t *testing.T) {
	script(t, LogOptions{Subject: Limit{Burst: 1}}, func(t *testing.T, l *Log, out *output) {
		i := 0
		repeat(2*maxSources, func() {
			name := fmt.Sprint("c", i/2) // the second of each is dropped
			l.Decided(record(name, "/bin/a", false))
			i++
		})
		repeat(maxSources, func() {
			name := fmt.Sprint("d", i)
			l.Decided(record(name, "/bin/a", false))
			i++
		})
		if n, m := len(l.keeper.sources), len(l.keeper.groups); n != maxSources || m != maxSources {
			t.Errorf("%d sources, %d groups", n, m)
		}
		out.lines(t)
		time.Sleep(10 * time.Second)
		expect(t, out, fmt.Sprintf("1× dropped  denied dropped=%d", maxSources))
	})
}

func TestQuietIsForgotten(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		repeat(1000, func() { l.Decided(record("web", "/bin/a", false)); l.Failed("pairs", io.EOF) })
		time.Sleep(time.Minute)
		synctest.Wait()
		k := &l.keeper
		if len(k.groups) != 0 || len(k.sources) != 0 || k.latest.Len() != 0 {
			t.Errorf("%d groups, %d sources, %d in the list are kept", len(k.groups), len(k.sources), k.latest.Len())
		}
	})
}

func TestFailures(t *testing.T) {
	script(t, LogOptions{}, func(t *testing.T, l *Log, out *output) {
		repeat(25, func() { l.Failed("pairs", io.EOF) })
		l.Failed("memory", nil)
		expect(t, out, "20× error pairs EOF", "1× error memory")
		time.Sleep(10 * time.Second)
		expect(t, out, "1× dropped pairs error dropped=5")
	})
}

func TestDeniedOnly(t *testing.T) {
	script(t, LogOptions{DeniedOnly: true}, func(t *testing.T, l *Log, out *output) {
		repeat(30, func() { l.Decided(record("web", "/bin/a", true)) })
		l.Decided(record("web", "/bin/a", false))
		expect(t, out, "1× denied web/bin/a denied")
	})
}

// blocked writes nothing before it is opened.
type blocked struct {
	output
	open chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.open
	return b.output.Write(p)
}

func TestBlockedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &blocked{open: make(chan struct{})}
		l := NewLog(out, LogOptions{Queue: 4, Subject: Limit{Burst: 100}})
		for range 10 { // one is being written, four wait
			l.Decided(record("web", "/bin/a", false))
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flush: %v", err)
		}
		close(out.open)
		synctest.Wait()
		l.Decided(record("web", "/bin/a", false))
		expect(t, &out.output, "5× denied web/bin/a denied", "1× denied web/bin/a denied dropped=5")
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &blocked{open: make(chan struct{})}
		l := NewLog(out, LogOptions{})
		for range 30 {
			l.Decided(record("web", "/bin/a", false))
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		const want = "close the log: 30 decisions and failures were neither written nor counted in it"
		if err := l.Close(short); err == nil || err.Error() != want {
			t.Errorf("close: %v", err)
		}
		close(out.open)
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("close again: %v", err)
		}
		l.Decided(record("web", "/bin/late", false))
		if err := l.Flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("close after a late decision: %v", err)
		}
		expect(t, &out.output, "20× denied web/bin/a denied", "1× dropped web/bin/a denied dropped=10")
	})
}

func TestFailingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out breaking
		l := NewLog(&out, LogOptions{})
		repeat(25, func() { l.Decided(record("web", "/bin/a", false)) })
		out.makeRoom(10000)
		l.Decided(record("web", "/bin/b", false))
		expect(t, &out.output, "1× dropped dropped=20 no space left", "1× denied web/bin/b denied")
		out.makeRoom(0)
		l.Failed("pairs", io.EOF)
		time.Sleep(time.Minute)
		expect(t, &out.output)
		out.makeRoom(10000) // and there is no traffic
		time.Sleep(time.Minute)
		expect(t, &out.output, "1× dropped dropped=6 no space left")
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseSaysWhatIsLost(t *testing.T) {
	l := NewLog(&breaking{}, LogOptions{})
	l.Failed("pairs", io.EOF)
	const want = "close the log: 1 decisions and failures were neither written nor counted in it"
	if err := l.Close(t.Context()); err == nil || err.Error() != want {
		t.Errorf("close: %v", err)
	}
}

// once fails once, when it is told to.
type once struct {
	output
	fail atomic.Bool
}

func (o *once) Write(p []byte) (int, error) {
	if o.fail.CompareAndSwap(true, false) {
		return 0, io.ErrNoProgress
	}
	return o.output.Write(p)
}

func TestLastWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out once
		l := NewLog(&out, LogOptions{})
		repeat(22, func() { l.Decided(record("web", "/bin/a", false)) })
		out.fail.Store(true)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, &out.output, "20× denied web/bin/a denied", "1× dropped dropped=2 "+io.ErrNoProgress.Error())
	})
}

// flaky fails at random, in the middle of a line.
type flaky struct{ output }

func (f *flaky) Write(p []byte) (int, error) {
	if rand.IntN(3) == 0 {
		n := rand.IntN(len(p))
		f.output.Write(p[:n])
		return n, io.ErrClosedPipe
	}
	return f.output.Write(p)
}

// TestEverythingIsTold shows that lines and their counts of dropped ones add up
// to the decisions, whatever is full, evicted, slow or failing.
func TestEverythingIsTold(t *testing.T) {
	const callers, calls = 16, 3000
	for name, w := range map[string]io.Writer{"good": &output{}, "flaky": &flaky{}} {
		t.Run(name, func(t *testing.T) {
			l := NewLog(w, LogOptions{Queue: 8, Subject: Limit{5, time.Millisecond}, Container: Limit{20, time.Millisecond}})
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := range calls {
						n := rand.IntN(9000)
						if i%10 == 0 {
							l.Failed(fmt.Sprint(n%50), io.EOF)
							continue
						}
						l.Decided(record(fmt.Sprint(n%90), fmt.Sprint(n%70), n%3 == 0))
					}
				})
			}
			for range 20 {
				if err := l.Flush(t.Context()); err != nil {
					t.Error(err)
				}
			}
			wg.Wait()
			lost := uint64(0)
			if err := l.Close(t.Context()); err != nil {
				if _, err := fmt.Sscanf(err.Error(), "close the log: %d", &lost); err != nil || name == "good" {
					t.Fatal(l.Close(t.Context()))
				}
			}
			if sum := lost + tell(t, w); sum != callers*calls {
				t.Errorf("%d of %d are told", sum, callers*calls)
			}
		})
	}
}

// tell adds up the reports of the whole lines.
func tell(t *testing.T, w io.Writer) uint64 {
	o, ok := w.(*output)
	if !ok {
		o = &w.(*flaky).output
	}
	sum, lines := uint64(0), 0
	for line := range strings.Lines(o.b.String()) {
		if !strings.HasSuffix(line, "}\n") && !ok {
			continue // torn
		}
		d := decode(t, line)
		sum, lines = sum+d.told(), lines+1
	}
	t.Logf("%d lines tell of %d", lines, sum)
	return sum
}
