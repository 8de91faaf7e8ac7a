package agent

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const someState = `{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":12,"metadata":"m","state":{"ociVersion":"1.0.2","id":"c","status":"creating","pid":12,"bundle":"/b"}}`

func TestReadState(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"as runc sends it", someState, ""},
		{"with a line feed", someState + "\n", ""},
		{"keys of another version", strings.Replace(someState, `"pid"`, `"new":[{}],"pid"`, 1), ""},
		{"nothing", "", "closed without a word"},
		{"white space", "  ", "closed without a word"},
		{"half", someState[:50], "closed in the middle of its state"},
		{"null", "null", `the container's id "" is not one`},
		{"two", someState + someState, "more than a state in the message"},
		{"no id", `{"pid":1}`, `the container's id "" is not one`},
		{"not UTF-8", strings.Replace(someState, `"c"`, "\"\xff\x1b\"", 1), "invalid character"},
		{"a long id", strings.Replace(someState, `"c"`, `"`+strings.Repeat("x", 257)+`"`, 1), "is not one"},
		{"pid 0", strings.Replace(someState, "12,", "0,", 1), `container "c": its process 0 is not one`},
		{"a large pid", strings.Replace(someState, "12,", "4194305,", 1), "its process 4194305 is not one"},
		{"a broken pid", strings.Replace(someState, "12,", "1.5,", 1), "cannot unmarshal number 1.5"},
		{"too long", `{"a":"` + strings.Repeat("x", maxState), "larger than 1024 KiB, the most that is read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := readState(strings.NewReader(tt.text))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "" && (s.State.ID != "c" || s.Pid != 12 || s.Metadata != "m"):
				t.Errorf("%+v", s)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A peer need not close: nothing waits for more text after the state.
func TestReadStateStops(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go w.Write([]byte(someState))
	if _, err := readState(r); err != nil {
		t.Error(err)
	}
}

func TestListenerIndex(t *testing.T) {
	for _, tt := range []struct {
		names string
		fds   int
		want  int
	}{
		{"seccompFd", 1, 0},
		{"other seccompFd", 2, 1},
		{"seccompFd other", 2, 0},
		{"seccompFd", 0, -1},
		{"seccompFd", 2, -1},
		{"seccompFd other", 1, -1},
		{"seccompFd seccompFd", 2, -1},
		{"other", 1, -1},
		{"", 0, -1},
		{"", 1, -1},
	} {
		i, err := listenerIndex(strings.Fields(tt.names), tt.fds)
		if i != tt.want || (err == nil) != (tt.want >= 0) {
			t.Errorf("%q, %d descriptors: %d, %v", tt.names, tt.fds, i, err)
		}
	}
}

// A state reads the same whole or byte by byte, and an accepted one is within
// the limits.
func FuzzReadState(f *testing.F) {
	f.Add([]byte(someState))
	f.Add([]byte(someState + " \n"))
	f.Add([]byte(`{"fds":["seccompFd","x"],"pid":1,"state":{"id":"\u0000"}}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readState(bytes.NewReader(text))
		bytewise, err2 := readState(iotest.OneByteReader(bytes.NewReader(text)))
		// Text behind a state is noticed only if it came with it.
		if err == nil && (err2 != nil || !reflect.DeepEqual(s, bytewise)) {
			t.Errorf("%q: whole %+v, byte by byte %+v, %v", text, s, bytewise, err2)
		}
		if err != nil {
			return
		}
		if id := s.State.ID; id == "" || len(id) > maxID || strings.ContainsAny(id, "\n\x00\x1b") || s.Pid < 1 {
			t.Errorf("%q was taken: %+v", text, s)
		}
		for n := range 3 {
			i, err := listenerIndex(s.Fds, n)
			if err == nil && (i < 0 || i >= n || s.Fds[i] != specs.SeccompFdName) {
				t.Errorf("%q: descriptor %d of %d", s.Fds, i, n)
			}
		}
	})
}

func TestGate(t *testing.T) {
	g := gate{most: 8, each: 2}
	root, one, two, three := peer{1, 0}, peer{1, 1001}, peer{1, 1002}, peer{1, 1003}
	for i, tt := range []struct {
		p    peer
		want bool
	}{{one, true}, {one, true}, {one, false}, {two, true}, {two, true}, {three, false}, {root, true}, {root, true}, {root, true}, {root, true}, {root, false}} {
		if got := g.enter(tt.p); got != tt.want {
			t.Errorf("%d: %v enters: %v", i, tt.p, got)
		}
	}
	g.leave(one)
	if g.enter(two) || !g.enter(three) {
		t.Error("what one left is for others")
	}
	entered := make(chan struct{})
	go func() {
		g.wait()
		close(entered)
	}()
	g.leave(root)
	<-entered
}

func TestLimiter(t *testing.T) {
	var l limiter
	through := 0
	for range 100 {
		if l.allow() {
			through++
		}
	}
	if through != limiterBurst || l.unsaid() != 100-limiterBurst || l.unsaid() != 0 {
		t.Errorf("%d came through", through)
	}
	l.last = l.last.Add(-2 * limiterEvery)
	for i, want := range []bool{true, true, false} {
		if l.allow() != want {
			t.Errorf("%d: %v was due", i, want)
		}
	}
}
