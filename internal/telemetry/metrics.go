package telemetry

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// other is the label of everything outside a list: every list of labels is
// fixed, so that no workload can add a time series.
const other = "other"

// requestTypes are the types of algorithms, requests without one, and the rest.
var requestTypes = []string{
	string(afalg.Hash), string(afalg.Skcipher), string(afalg.AEAD), string(afalg.RNG), "socket", other,
}

// Indexes of requestTypes: the first that is no type of an algorithm, and the
// last.
const (
	typeSocket = 4
	typeOther  = 5
)

// calls are the calls that the broker times; accept4 counts as accept.
var calls = []string{"socket", "bind", "setsockopt", "accept", "socketcall", "socketpair", other}

// failures are the failures that the broker reports.
var failures = []string{
	"answer", "descriptor", "foreign process", "memory", "pairs", "panic",
	"session", "socketcall", "unknown call",
}

// buckets are the upper bounds of the times of calls, in seconds: from 1 µs to
// 10 s.
var buckets = []float64{
	1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3,
	5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
}

// Metrics counts and times the broker's work. Every time series exists from the
// beginning, at zero.
type Metrics struct {
	registry *prometheus.Registry
	// By verdict (1 is allowed), and in the order of requestTypes.
	requests  [2][]prometheus.Counter
	durations map[string]prometheus.Observer
	errors    map[string]prometheus.Counter
	sessions  prometheus.Gauge
	listeners prometheus.Gauge
	build     *build
}

// NewMetrics makes the metrics of this version of the program. more names
// failures that the caller reports, and the broker does not know.
func NewMetrics(version string, more ...string) *Metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afalg_policy_requests_total",
		Help: "Decisions, by verdict and by the type of the algorithm: socket if none was asked for yet, other if it is unknown.",
	}, []string{"verdict", "type"})
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "afalg_policy_call_duration_seconds",
		Help:    "How long trapped calls took, decided or not.",
		Buckets: buckets,
	}, []string{"call"})
	errors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afalg_policy_errors_total",
		Help: "What went wrong; the call was denied.",
	}, []string{"what"})
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		durations: map[string]prometheus.Observer{}, errors: map[string]prometheus.Counter{},
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afalg_policy_sessions",
			Help: "Placeholders that workloads hold.",
		}),
		listeners: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afalg_policy_listeners",
			Help: "Workloads whose calls are served.",
		}),
		build: newBuild(version),
	}
	m.registry.MustRegister(requests, durations, errors, m.sessions, m.listeners, m.build)
	m.resolve(requests, durations, errors, more)
	return m
}

// resolve makes every time series, so that none has to be found by its labels.
func (m *Metrics) resolve(requests *prometheus.CounterVec, durations *prometheus.HistogramVec, errors *prometheus.CounterVec, more []string) {
	for i, verdict := range []kind{denied, allowed} {
		for _, t := range requestTypes {
			m.requests[i] = append(m.requests[i], requests.WithLabelValues(verdict.String(), t))
		}
	}
	for _, call := range calls {
		m.durations[call] = durations.WithLabelValues(call)
	}
	m.durations["accept4"] = m.durations["accept"]
	for _, list := range [][]string{failures, more, {other}} {
		for _, what := range list {
			m.errors[what] = errors.WithLabelValues(what)
		}
	}
}

// Decided implements plan.Observer.
func (m *Metrics) Decided(r plan.Record) {
	verdict := 0
	if r.Allowed {
		verdict = 1
	}
	m.requests[verdict][typeOf(r.Algorithm)].Inc()
}

// typeOf is the index in requestTypes.
func typeOf(algorithm string) int {
	if algorithm == "" {
		return typeSocket
	}
	t, _, found := strings.Cut(algorithm, ":")
	if i := slices.Index(requestTypes[:typeSocket], t); found && i >= 0 {
		return i
	}
	return typeOther
}

// Answered implements plan.Observer.
func (m *Metrics) Answered(call string, took time.Duration) {
	o, known := m.durations[call]
	if !known {
		o = m.durations[other]
	}
	o.Observe(took.Seconds())
}

// Sessions implements plan.Observer.
func (m *Metrics) Sessions(change int) { m.sessions.Add(float64(change)) }

// Listeners reports a change of the number of workloads served.
func (m *Metrics) Listeners(change int) { m.listeners.Add(float64(change)) }

// Failed implements plan.Observer.
func (m *Metrics) Failed(what string, _ error) {
	c, known := m.errors[what]
	if !known {
		c = m.errors[other]
	}
	c.Inc()
}

// SetPolicy sets the digest of the policy that decides from now on.
func (m *Metrics) SetPolicy(digest string) {
	digest = strings.ToValidUTF8(digest, "\uFFFD")
	m.build.policy.Store(&digest)
}

// Handler answers a scrape. It does not compress: that would keep buffers of
// megabytes for text that stays on the machine.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxConnections,
		DisableCompression:  true,
	})
}

// build is the one time series with a label that changes: a vector would show
// none, or two, during the change.
type build struct {
	about   *prometheus.Desc
	version string
	policy  atomic.Pointer[string]
}

func newBuild(version string) *build {
	b := &build{version: strings.ToValidUTF8(version, "\uFFFD")}
	b.about = prometheus.NewDesc("afalg_policy_build_info",
		"The version of the program, and the digest of the policy that it decides by.",
		[]string{"version", "policy"}, nil)
	b.policy.Store(new(string))
	return b
}

// Describe implements prometheus.Collector.
func (b *build) Describe(to chan<- *prometheus.Desc) { to <- b.about }

// Collect implements prometheus.Collector.
func (b *build) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(b.about, prometheus.GaugeValue, 1, b.version, *b.policy.Load())
}
