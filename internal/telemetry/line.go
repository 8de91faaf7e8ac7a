package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Bounds of texts in a line, escapes included; a longer text is cut in its
// middle. maxLine bounds the resulting line.
const (
	maxExecutable = 1024
	maxReason     = 1024
	maxError      = 4096
	maxText       = 256
	maxLine       = 8192
)

// liner writes lines of JSON. It escapes everything that does not print, not
// only where JSON demands it, so that no text can steer a terminal or turn its
// direction. Bytes that are not UTF-8 become U+FFFD.
type liner struct {
	w       io.Writer
	handler slog.Handler
	raw     bytes.Buffer
	line    []byte
	torn    bool // the last line was written in part
}

func newLiner(w io.Writer) *liner {
	l := &liner{w: w}
	l.handler = slog.NewJSONHandler(&l.raw, nil)
	return l
}

func (l *liner) entry(e *entry) error {
	if e.kind == failed {
		return l.failure(e)
	}
	return l.decision(e)
}

func (l *liner) decision(e *entry) error {
	r := &e.record
	level := slog.LevelInfo
	if !r.Allowed {
		level = slog.LevelWarn
	}
	var a attributes
	a.text("container", r.Workload, maxText)
	a.text("call", r.Call, maxText)
	a.number("pid", int64(r.PID), r.PID != 0)
	a.number("tid", int64(r.TID), r.TID != 0)
	a.text("executable", r.Executable, maxExecutable)
	a.text("sha256", r.SHA256, maxText)
	if r.UID != nil {
		a.number("uid", int64(*r.UID), true)
	}
	a.text("user", r.User, maxText)
	a.text("unit", r.Unit, maxText)
	a.text("algorithm", r.Algorithm, maxText)
	a.text("verdict", e.kind.String(), maxText)
	a.text("rule", r.Rule, maxText)
	a.text("reason", r.Reason, maxReason)
	a.text("errno", errnoName(r), maxText)
	a.number("dropped", int64(e.dropped), e.dropped > 0)
	return l.write(r.Time, level, e.kind.String(), &a)
}

func errnoName(r *plan.Record) string {
	if r.Errno == 0 {
		return ""
	}
	if name := afalg.ErrnoName(r.Errno); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(r.Errno), 10)
}

func (l *liner) failure(e *entry) error {
	var a attributes
	a.text("what", e.what, maxText)
	if e.err != nil {
		a.text("error", e.err.Error(), maxError)
	}
	a.number("dropped", int64(e.dropped), e.dropped > 0)
	return l.write(e.record.Time, slog.LevelError, e.kind.String(), &a)
}

func (l *liner) summary(s *summary) error {
	var a attributes
	a.text("container", s.container, maxText)
	if s.kind == failed {
		a.text("what", s.name, maxText)
	} else {
		a.text("executable", s.name, maxExecutable)
		a.number("uid", s.uid, s.uid >= 0)
	}
	if s.kind != kinds {
		a.text("verdict", s.kind.String(), maxText)
	}
	a.number("dropped", int64(s.dropped), true)
	a.number("subjects", int64(s.sources), s.sources > 1)
	if s.err != nil {
		a.text("error", s.err.Error(), maxError)
	}
	return l.write(time.Now(), slog.LevelWarn, "dropped", &a)
}

// attributes are the fields of a line; empty ones are left out.
type attributes struct {
	list [16]slog.Attr
	n    int
}

func (a *attributes) text(key, value string, limit int) {
	if value != "" {
		a.list[a.n] = slog.String(key, shorten(value, limit))
		a.n++
	}
}

func (a *attributes) number(key string, value int64, given bool) {
	if given {
		a.list[a.n] = slog.Int64(key, value)
		a.n++
	}
}

// write writes a line by one call of the writer, whole or with an error.
func (l *liner) write(t time.Time, level slog.Level, message string, a *attributes) error {
	r := slog.NewRecord(t.UTC(), level, message, 0)
	r.AddAttrs(a.list[:a.n]...)
	l.raw.Reset()
	if err := l.handler.Handle(context.Background(), r); err != nil {
		return err
	}
	l.line = l.line[:0]
	if l.torn {
		l.line = append(l.line, '\n')
	}
	l.line = escape(l.line, l.raw.Bytes())
	n, err := l.w.Write(l.line)
	if n > 0 {
		l.torn = n < len(l.line) && !(l.torn && n == 1)
	}
	switch {
	case n >= len(l.line)-1: // its end comes with the next line
		return nil
	case err == nil:
		return io.ErrShortWrite
	}
	return err
}

// escape appends a line of JSON, and escapes the characters in it that do not
// print. They occur in strings only.
func escape(to, line []byte) []byte {
	for i := 0; i < len(line); {
		c := line[i]
		if c < utf8.RuneSelf && c != 0x7f {
			to = append(to, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		switch high, low := utf16.EncodeRune(r); {
		case strconv.IsPrint(r):
			to = append(to, line[i:i+n]...)
		case r > 0xffff:
			to = fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		default:
			to = fmt.Appendf(to, `\u%04x`, r)
		}
		i += n
	}
	return to
}

// shorten cuts the middle out of a text that would take more than limit bytes
// in a line, and says how many bytes were there: the directory and the name of
// an executable tell more than the part between them.
func shorten(s string, limit int) string {
	if len(s)*maxCost <= limit || len(s) <= limit && cost(s) <= limit {
		return s
	}
	half := (limit - len("…18446744073709551615 bytes…")) / 2
	head, tail := 0, len(s)
	for taken := 0; head < len(s); {
		r, n := utf8.DecodeRuneInString(s[head:])
		if taken += runeCost(r, n); taken > half {
			break
		}
		head += n
	}
	for taken := 0; tail > head; {
		r, n := utf8.DecodeLastRuneInString(s[head:tail])
		if taken += runeCost(r, n); taken > half {
			break
		}
		tail -= n
	}
	return fmt.Sprintf("%s…%d bytes…%s", s[:head], tail-head, s[tail:])
}

// maxCost is the most that one byte takes: an escape.
const maxCost = len(`\u0000`)

// cost is at least the length.
func cost(s string) int {
	sum := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		sum += runeCost(r, n)
		i += n
	}
	return sum
}

func runeCost(r rune, size int) int {
	switch {
	case r == '"' || r == '\\':
		return 2
	case r == utf8.RuneError && size == 1 || !strconv.IsPrint(r) && r <= 0xffff:
		return maxCost
	case !strconv.IsPrint(r):
		return 2 * maxCost
	default:
		return size
	}
}
