package telemetry

import (
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func benchRecord() plan.Record {
	return plan.Record{
		Time: time.Now(), Workload: "4f1b0a3c5d6e7f809a1b2c3d4e5f60718293a4b5c6d7e8f9", Call: "bind", PID: 4711, TID: 4712,
		Executable: "/usr/bin/openssl", SHA256: "9f2c", UID: uid(1000), User: "web", Algorithm: "aead:gcm(aes)",
		Reason: "no rule allows it", Errno: 2,
	}
}

func observe(b *testing.B, o plan.Observer) {
	r := benchRecord()
	b.ReportAllocs()
	for b.Loop() {
		o.Decided(r)
		o.Answered("bind", 25*time.Microsecond)
	}
}

func BenchmarkLogDropping(b *testing.B) {
	l := NewLog(io.Discard, LogOptions{})
	defer l.Close(b.Context())
	observe(b, l)
}

// BenchmarkLogNewSubjects logs decisions, each of a new executable.
func BenchmarkLogNewSubjects(b *testing.B) {
	l := NewLog(io.Discard, LogOptions{})
	defer l.Close(b.Context())
	r := benchRecord()
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprint("/tmp/", i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.Executable = names[i%len(names)]
		i++
		l.Decided(r)
	}
}

// BenchmarkLogLine logs without limits.
func BenchmarkLogLine(b *testing.B) {
	var out output
	l := newLiner(&out)
	e := entry{kind: denied, record: benchRecord()}
	b.ReportAllocs()
	for b.Loop() {
		out.b.Reset()
		if err := l.entry(&e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMetrics(b *testing.B) { observe(b, NewMetrics("v1")) }

func BenchmarkBoth(b *testing.B) {
	l := NewLog(io.Discard, LogOptions{})
	defer l.Close(b.Context())
	observe(b, Multi(l, NewMetrics("v1")))
}

func BenchmarkBothParallel(b *testing.B) {
	l := NewLog(io.Discard, LogOptions{})
	defer l.Close(b.Context())
	o := Multi(l, NewMetrics("v1"))
	r := benchRecord()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o.Decided(r)
			o.Answered("bind", 25*time.Microsecond)
		}
	})
}

// TestMemory shows that the log keeps nothing of a container without traffic,
// little of one with it, and a bounded amount of any number of hostile ones.
func TestMemory(t *testing.T) {
	empty := heap()
	l := NewLog(io.Discard, LogOptions{})
	m := NewMetrics("v1")
	idle := heap()
	for i := range 1000 {
		l.Decided(record(fmt.Sprint("c", i), "/usr/bin/openssl", false))
	}
	busy := heap()
	long := string(make([]byte, 4096))
	for i := range 40000 {
		l.Decided(record(fmt.Sprint("c", i%1000), fmt.Sprint(i, long), i%2 == 0))
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	hostile := heap()
	t.Logf("KiB: idle %d, 1,000 containers %d, hostile %d", (idle-empty)>>10, (busy-empty)>>10, (hostile-empty)>>10)
	if idle-empty > 1<<20 || busy-empty > 3<<20 || hostile-empty > 12<<20 {
		t.Error("that is too much")
	}
	runtime.KeepAlive(m)
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
