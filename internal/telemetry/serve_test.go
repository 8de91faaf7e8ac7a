package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// start serves at an address until the test ends, and returns a client of it.
func start(t *testing.T, m *Metrics, address string) (l net.Listener, client *http.Client, stop func()) {
	t.Helper()
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- m.Serve(ctx, l) }()
	stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		served <- nil
	}
	t.Cleanup(stop)
	where := l.Addr()
	client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial(where.Network(), where.String())
		},
	}}
	return l, client, stop
}

func TestScrape(t *testing.T) {
	for _, address := range []string{"unix:" + filepath.Join(t.TempDir(), "metrics"), "127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			m := NewMetrics("v1")
			m.Decided(plan.Record{Algorithm: "hash:sha256", Allowed: true})
			m.Answered("bind", time.Millisecond)
			_, client, _ := start(t, m, address)
			r, err := client.Get("http://metrics/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			p := expfmt.NewTextParser(model.UTF8Validation)
			families, err := p.TextToMetricFamilies(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			for name, series := range map[string]int{
				"afalg_policy_requests_total":        12,
				"afalg_policy_call_duration_seconds": len(calls),
				"afalg_policy_sessions":              1,
				"afalg_policy_listeners":             1,
				"afalg_policy_errors_total":          len(failures) + 1,
				"afalg_policy_build_info":            1,
			} {
				if got := len(families[name].GetMetric()); got != series {
					t.Errorf("%s has %d series, not %d", name, got, series)
				}
				delete(families, name)
			}
			if len(families) != 0 {
				t.Errorf("and there is %v", families)
			}
		})
	}
}

func TestOnlyMetricsAreServed(t *testing.T) {
	_, client, _ := start(t, NewMetrics("v1"), "127.0.0.1:0")
	for _, c := range []struct {
		method, path, header string
		want                 int
	}{
		{"GET", "/metrics", "", 200},
		{"HEAD", "/metrics", "", 200},
		{"POST", "/metrics", "", 405},
		{"GET", "/", "", 404},
		{"GET", "/metrics/", "", 404},
		{"GET", "/debug/pprof/", "", 404},
		{"GET", "/metrics", strings.Repeat("a", 3*maxHeader), 431},
	} {
		r, err := http.NewRequest(c.method, "http://metrics"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Long", c.header)
		got, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		if got.StatusCode != c.want {
			t.Errorf("%s %s: %d, not %d", c.method, c.path, got.StatusCode, c.want)
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	l, client, _ := start(t, NewMetrics("v1"), "unix:"+filepath.Join(t.TempDir(), "m"))
	var idle []net.Conn
	for range maxConnections {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	if r, err := client.Get("http://metrics/metrics"); err == nil {
		r.Body.Close()
		t.Fatalf("one too many got %d", r.StatusCode)
	}
	idle[0].Close()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
		r, err := client.Get("http://metrics/metrics")
		if err == nil {
			r.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a free place is not used: %v", err)
		}
	}
}

func TestUnixSocketIsPrivate(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "m")
	_, _, stop := start(t, NewMetrics("v1"), "unix:"+path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the mode is %v", info.Mode())
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// stale leaves a socket that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	stale(t, path)
	_, client, _ := start(t, NewMetrics("v1"), "unix:"+path)
	r, err := client.Get("http://metrics/metrics")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
}

func TestAnotherFileIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	_, _, stop := start(t, NewMetrics("v1"), "unix:"+path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestBadAddresses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return "unix:" + filepath.Join(dir, name) }
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale(t, filepath.Join(dir, "stale"))
	for link, to := range map[string]string{"link": "stale", "dangling": "nowhere", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, NewMetrics("v1"), at("live"))
	const (
		use  = "write unix:/PATH, 127.0.0.1:PORT or [::1]:PORT"
		open = " may be reached from elsewhere, and a scrape needs no password: use 127.0.0.1, [::1] or unix:/PATH, and a proxy that asks for one if metrics must leave the machine"
		path = `the path must be absolute, without ".", ".." and double or final slashes`
	)
	for address, want := range map[string]string{
		"":                     "it is no address and port: " + use,
		"9100":                 "it is no address and port: " + use,
		"127.0.0.1":            "it is no address and port: " + use,
		":9100":                "without a host it would be reached from elsewhere, and a scrape needs no password: " + use,
		"localhost:9100":       "a name may stand for any address: " + use,
		"127.0.0.1:http":       "it has no valid port: " + use,
		"127.0.0.1:65536":      "it has no valid port: " + use,
		"0.0.0.0:9100":         "0.0.0.0" + open,
		"[::]:9100":            "::" + open,
		"10.0.0.1:9100":        "10.0.0.1" + open,
		"127.0.0.2:9100":       "127.0.0.2" + open,
		"[::ffff:127.0.0.1]:1": "::ffff:127.0.0.1" + open,
		"[::1%lo]:9100":        "::1%lo" + open,
		"/run/metrics":         "a path needs a prefix: write unix:/run/metrics",
		"unix:":                path,
		"unix:metrics":         path,
		"unix:/":               path,
		"unix:/run/../etc/x":   path,
		"unix:/run//x":         path,
		"unix:/run/x/":         path,
		"unix:@metrics":        "an abstract socket has no owner, so that any process could connect: use a path",
		"unix:/run/a\x00b":     "the path holds a NUL",
		"unix:/" + long:        "the path has 108 bytes; a socket takes 107 at most",
		at("file"):             "there is something that is no socket: remove it, or use another path",
		at("link"):             "there is something that is no socket: remove it, or use another path",
		at("dangling"):         "there is something that is no socket: remove it, or use another path",
		at("loop"):             "there is something that is no socket: remove it, or use another path",
		at("live"):             "a running process listens there: end it, or use another path",
		at("nowhere/m"):        "listen unix " + filepath.Join(dir, "nowhere/m") + ": bind: no such file or directory",
	} {
		l, err := Listen(address)
		if err == nil {
			l.Close()
			t.Errorf("%q: no error", address)
			continue
		}
		if _, got, _ := strings.Cut(err.Error(), `": `); got != want || !strings.HasPrefix(err.Error(), "metrics address ") {
			t.Errorf("%q:\ngot  %s\nwant %s", address, got, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); string(text) != "mine" || err != nil {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a dangling link was followed")
	}
}

var long = strings.Repeat("a", maxPath)

// pipes is a listener without a network, so that time costs nothing.
type pipes struct {
	net.Listener
	conns chan net.Conn
	ended chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.ended)
	return nil
}

func TestSlowClientsAreCutOff(t *testing.T) {
	const get = "GET /metrics HTTP/1.1\r\n"
	for name, c := range map[string]struct {
		sent  string
		reads bool
		after time.Duration
	}{
		"silent":           {"", true, readTimeout},
		"half a request":   {get, true, readTimeout},
		"takes no answer":  {get + "Host: m\r\n\r\n", false, writeTimeout},
		"asks no more":     {get + "Host: m\r\n\r\n", true, readTimeout},
		"body without end": {get + "Host: m\r\nContent-Length: 9\r\n\r\n", true, readTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				l := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
				served := make(chan error)
				go func() { served <- NewMetrics("v1").Serve(ctx, l) }()
				ours, theirs := net.Pipe()
				closed := &closing{Conn: theirs, at: make(chan time.Time, 1)}
				began := time.Now()
				l.conns <- closed
				if _, err := io.WriteString(ours, c.sent); err != nil {
					t.Fatal(err)
				}
				if c.reads {
					go io.Copy(io.Discard, ours)
				}
				if took := (<-closed.at).Sub(began); took > c.after {
					t.Errorf("it took %v", took)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// closing reports when a connection is closed.
type closing struct {
	net.Conn
	at chan time.Time
}

func (c *closing) Close() error {
	select {
	case c.at <- time.Now():
	default:
	}
	return c.Conn.Close()
}

func TestServeEndsWithItsListener(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewMetrics("v1").Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := NewMetrics("v1").ListenAndServe(t.Context(), ":1"); err == nil {
		t.Error("no error")
	}
}
