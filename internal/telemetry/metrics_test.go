package telemetry

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// grep returns the lines of a family that are not zero.
func grep(text, family string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, family) && !strings.HasSuffix(line, " 0\n") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestRequests(t *testing.T) {
	m := NewMetrics("v1")
	for _, algorithm := range []string{
		"hash:sha256", "skcipher:cbc(aes)", "aead:gcm(aes)", "rng:stdrng", "", "akcipher:rsa",
		"socket:x", "other:x", "hash", "HASH:x", ":", "\xff:x", "hash:",
	} {
		m.Decided(plan.Record{Algorithm: algorithm, Allowed: true})
	}
	m.Decided(plan.Record{Algorithm: "hash:sha256"})
	want := []string{
		`afalg_policy_requests_total{type="aead",verdict="allowed"} 1`,
		`afalg_policy_requests_total{type="hash",verdict="allowed"} 2`,
		`afalg_policy_requests_total{type="hash",verdict="denied"} 1`,
		`afalg_policy_requests_total{type="other",verdict="allowed"} 7`,
		`afalg_policy_requests_total{type="rng",verdict="allowed"} 1`,
		`afalg_policy_requests_total{type="skcipher",verdict="allowed"} 1`,
		`afalg_policy_requests_total{type="socket",verdict="allowed"} 1`,
	}
	if diff := cmp.Diff(want, grep(scrape(t, m), "afalg_policy_requests_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRequestTypes(t *testing.T) {
	var want []string
	for _, a := range afalg.Types() {
		want = append(want, string(a))
	}
	got := slices.Sorted(slices.Values(requestTypes[:typeSocket]))
	if !slices.Equal(got, want) || requestTypes[typeSocket] != "socket" || requestTypes[typeOther] != other || len(requestTypes) != typeOther+1 {
		t.Errorf("the types are %q, of afalg %q", requestTypes, want)
	}
}

func TestGaugesAndErrors(t *testing.T) {
	m := NewMetrics("v1", "reload")
	m.Sessions(3)
	m.Sessions(-1)
	m.Listeners(5)
	m.Failed("pairs", io.EOF)
	m.Failed("reload", io.EOF)
	m.Failed("made up", io.EOF)
	m.Failed("\xff", nil)
	m.SetPolicy("9f2c")
	text := scrape(t, m)
	for family, want := range map[string][]string{
		"afalg_policy_sessions":   {"afalg_policy_sessions 2"},
		"afalg_policy_listeners":  {"afalg_policy_listeners 5"},
		"afalg_policy_build_info": {`afalg_policy_build_info{policy="9f2c",version="v1"} 1`},
		"afalg_policy_errors_total": {
			`afalg_policy_errors_total{what="other"} 2`,
			`afalg_policy_errors_total{what="pairs"} 1`,
			`afalg_policy_errors_total{what="reload"} 1`,
		},
	} {
		if diff := cmp.Diff(want, grep(text, family)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", family, diff)
		}
	}
	m.SetPolicy("bad\xff")
	want := []string{`afalg_policy_build_info{policy="bad` + "\uFFFD" + `",version="v1"} 1`}
	if diff := cmp.Diff(want, grep(scrape(t, m), "afalg_policy_build_info")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDurations(t *testing.T) {
	m := NewMetrics("v1")
	m.Answered("bind", 20*time.Microsecond)
	m.Answered("bind", time.Minute)
	m.Answered("accept4", time.Microsecond)
	m.Answered("made up", time.Microsecond)
	text := scrape(t, m)
	for line, want := range map[string]bool{
		`afalg_policy_call_duration_seconds_bucket{call="bind",le="1e-05"} 0`:    true,
		`afalg_policy_call_duration_seconds_bucket{call="bind",le="2.5e-05"} 1`:  true,
		`afalg_policy_call_duration_seconds_bucket{call="bind",le="10"} 1`:       true,
		`afalg_policy_call_duration_seconds_bucket{call="bind",le="+Inf"} 2`:     true,
		`afalg_policy_call_duration_seconds_bucket{call="accept",le="1e-06"} 1`:  true,
		`afalg_policy_call_duration_seconds_bucket{call="other",le="1e-06"} 1`:   true,
		`afalg_policy_call_duration_seconds_bucket{call="accept4",le="1e-06"} 1`: false,
	} {
		if got := strings.Contains(text, line+"\n"); got != want {
			t.Errorf("%s: found is %v", line, got)
		}
	}
}

// TestSeriesAreFixed shows that a workload's input adds nothing.
func TestSeriesAreFixed(t *testing.T) {
	m := NewMetrics("v1")
	series := func() int { return strings.Count(scrape(t, m), "\n") }
	before := series()
	for i := range 1000 {
		n := strconv.Itoa(i)
		m.Decided(plan.Record{Workload: n, Call: n, Executable: n, User: n, Unit: n, Algorithm: n + ":" + n, Rule: n, Errno: uint32(i)})
		m.Answered(n, time.Duration(i))
		m.Failed(n, nil)
	}
	if after := series(); after != before {
		t.Errorf("%d lines became %d", before, after)
	}
	t.Logf("%d lines", before)
}

// TestFailuresAreKnown compares the list with the source of the broker.
func TestFailuresAreKnown(t *testing.T) {
	files, err := filepath.Glob("../broker/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("the broker is not there: ", err)
	}
	var used []string
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			used = append(used, failuresIn(t, name)...)
		}
	}
	slices.Sort(used)
	if diff := cmp.Diff(slices.Compact(used), failures); diff != "" {
		t.Errorf("what the broker reports is not the list (-broker +list):\n%s", diff)
	}
}

func failuresIn(t *testing.T, name string) []string {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); !ok || s.Sel.Name != "Failed" {
			return true
		}
		what, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			t.Errorf("%s: what failed is not a literal", name)
			return true
		}
		text, err := strconv.Unquote(what.Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, text)
		return true
	})
	return found
}

type counter struct{ decided, answered, sessions, failed int }

func (c *counter) Decided(plan.Record)            { c.decided++ }
func (c *counter) Answered(string, time.Duration) { c.answered++ }
func (c *counter) Sessions(change int)            { c.sessions += change }
func (c *counter) Failed(string, error)           { c.failed++ }

func TestMulti(t *testing.T) {
	var a, b counter
	for _, o := range []plan.Observer{Multi(&a, nil, &b), Multi(&a), Multi()} {
		o.Decided(plan.Record{})
		o.Answered("bind", 1)
		o.Sessions(5)
		o.Failed("pairs", nil)
	}
	if a != (counter{2, 2, 10, 2}) || b != (counter{1, 1, 5, 1}) {
		t.Errorf("got %v and %v", a, b)
	}
}
